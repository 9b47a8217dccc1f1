"""A training or model file and demonstrations in, a policy bundle out.

`ros2 run vla_training train config/training/tabletop.yaml --output outputs/run`
`ros2 run vla_training train config/models/tiny_tabletop.yaml --data outputs/demonstrations --output outputs/run`

OUTPUT/bundle is the newest policy, OUTPUT/best the one with the lowest validation loss. Ctrl-C or SIGTERM saves and
ends; `--resume` goes on exactly where it stopped, without it a folder that holds a run is refused; a second Ctrl-C ends
at once.

Several processes share every batch, on one machine or many, when torchrun starts them (on a CPU with `threads: 1`),
or, on GPUs, accelerate, which starts one process only where it finds none:
`torchrun --nproc-per-node 2 -m vla_training.train config/training/tabletop.yaml --output outputs/run`
`accelerate launch --multi_gpu --num_processes 2 -m vla_training.train config/training/tabletop.yaml --output O`
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from vla_policy.errors import VlaError
from vla_training.console import refuse
from vla_training.training import state
from vla_training.training.report import RunEnd, ValidationReport
from vla_training.training.run import Run
from vla_training.training.signals import stop_on_signal
from vla_training.watch.facts import machine_facts
from vla_training.watch.recordings import held_out_measure
from vla_training.watch.watcher import Watcher


def train(run: Run, resume: bool, console: Console) -> None:
    """Run the loop to the end of its budget, or to Ctrl-C, saving and exporting on the way.

    Raises: VlaError, among others where there is nothing to resume, or a new run would replace another one.
    """
    trainer, watcher = run.trainer, None
    if resume:
        trainer.resume(run.state_folder)
    else:
        run.stepper.together(lambda: state.check_none(run.state_folder))
    if run.accelerator.is_main_process:
        watcher = _watcher(run, console)
    with stop_on_signal() as trainer.stop:
        try:
            _loop(run, watcher)
            bundle = _checkpoint(run, watcher)
            if watcher:
                best = run.output / "best"
                watcher.end(RunEnd(trainer.progress.step, trainer.progress.minutes, trainer.end_reason, str(bundle),
                                   str(best) if best.is_dir() else None))
        finally:
            if watcher:
                watcher.close()


def _watcher(run: Run, console: Console) -> Watcher:
    """What a person sees of the run; in the first process only."""
    run.output.mkdir(parents=True, exist_ok=True)
    trainer, watch, accelerator = run.trainer, run.training.watch, run.accelerator
    facts = {
        "config": {"model": run.file.model.model_dump(mode="json"), "training": run.training.model_dump(mode="json")},
        "data": run.facts,
        "command": run.provenance,
        "machine": machine_facts(accelerator.device, accelerator.num_processes),
    }
    open_loop = held_out_measure(run.data, run.contract, watch.open_loop, run.bundle, accelerator.device)
    return Watcher(watch, run.output, facts, console, trainer.progress.step, open_loop, lambda: bool(trainer.stop))


def _loop(run: Run, watcher: Watcher | None) -> None:
    trainer = run.trainer
    for report in trainer.run():
        if isinstance(report, ValidationReport):
            _validated(run, report, watcher)
        elif watcher:
            watcher.step(report)
        # A checkpoint holds the validation of its own step, or a resumed run would never know of it.
        whole = isinstance(report, ValidationReport) or not trainer.validates
        if whole and report.step % run.training.export_every == 0 and trainer.share_done() < 1.0:
            _checkpoint(run, watcher)


def _validated(run: Run, report: ValidationReport, watcher: Watcher | None) -> None:
    with run.stepper.averaged(), run.stepper.whole() as model:
        if watcher:
            watcher.validation(report, model)
    if report.improved:
        run.export("best")


def _checkpoint(run: Run, watcher: Watcher | None) -> Path:
    run.trainer.save(run.state_folder)
    bundle = run.export("bundle")
    if watcher:
        watcher.exported(run.trainer.progress.step, bundle)
    return bundle


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path, help="config/training/*.yaml or config/models/*.yaml")
    parser.add_argument("--data", type=Path, nargs="+", default=(), help="folders to learn from, not the config's")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --output stopped")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    console = Console()
    return run_training(
        lambda: Run(options.config, options.robot, options.output, options.device, arguments, options.data),
        options.resume, console)


def run_training(make_run: Callable[[], Run], resume: bool, console: Console) -> int:
    """Make a run and train it; what stands in the way is said. Returns the exit status."""
    run = None
    try:
        run = make_run()
        train(run, resume, console)
    except VlaError as problem:
        refuse(console, problem)
        return 1
    except KeyboardInterrupt:  # later ones are heard by the loop
        console.print("interrupted before the first step; nothing was trained")
        return 128 + signal.SIGINT
    finally:
        if run:
            run.accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(main())

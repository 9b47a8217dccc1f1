"""A training or model file and demonstrations in, a policy bundle out.

`ros2 run vla_training train config/training/tabletop.yaml --output outputs/run`
`ros2 run vla_training train config/models/tiny_tabletop.yaml --data outputs/demonstrations --output outputs/run`

Ctrl-C saves; `--resume` goes on where it stopped. The newest bundle is always at OUTPUT/bundle. Several
processes share the batches when torchrun starts them, on a CPU with `threads: 1`:
`torchrun --nproc-per-node 2 -m vla_training.train config/training/tabletop.yaml --output outputs/run`
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vla_policy.action.codec import ActionCodec
from vla_policy.checkpoint import Bundle, check_fits, load_bundle, save_bundle
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.model.config import ModelFile
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel, build_model
from vla_policy.normalizer import Normalizer
from vla_policy.resources import find_contract
from vla_training.config import TrainingConfig, load_training_file
from vla_training.curves import LossCurves
from vla_training.datasets.windows import Demonstrations, load_demonstrations
from vla_training.tabletop.grounding import PlaceScale, fit_state, load_scenes
from vla_training.parallel import Group
from vla_training.tabletop.pretrain import load_grounding
from vla_training.provenance import provenance
from vla_training.trainer import StepReport, Trainer, prepare


class Run:
    """Everything a training run needs, built from its config: data, model, trainer; and what it writes."""

    def __init__(
        self,
        config_path: Path,
        robot: str,
        output: Path,
        device: torch.device,
        group: Group | None = None,
        arguments: Sequence[str] | None = None,
        datasets: Sequence[Path] = (),
    ) -> None:
        self.group = group or Group()
        self._provenance = provenance("train", arguments)
        self.file, self.training = load_training_file(config_path, datasets)
        self.contract = load_contract(find_contract(robot))
        self.output = output
        torch.set_num_threads(self.training.threads)
        torch.manual_seed(self.training.seed)
        with self.group.first_alone():  # the first reading decodes the videos
            self.data = load_demonstrations(self.training.datasets, self.contract, self.file.model)
        self.start = _start(self.file, self.training, self.contract, self.data)
        scale = PlaceScale.of(self.contract) if self.training.losses.grounding_weight else None
        prepared = prepare(
            self.data,
            self.file.model,
            self.training,
            ActionCodec(self.contract, self.start.action_normalizer),
            self.start.state_normalizer,
            self.start.tokenizer,
            scale,
        )
        scenes = None
        if self.training.scenes:
            scenes = load_scenes(self.training.scenes).for_model(
                self.start.state_normalizer, self.start.tokenizer, self.file.model.text_length, scale
            )
        self.trainer = Trainer(
            self.start.model, self.file.model, self.training, prepared, scenes, device, self.group
        )

    @property
    def state_folder(self) -> Path:
        """Where the resumable state lies."""
        return self.output / "state"

    def export(self, losses: dict[str, float]) -> None:
        """Write OUTPUT/bundle from the averaged weights."""
        facts = self._provenance | {
            "steps": self.trainer.progress.step,
            "minutes": round(self.trainer.progress.minutes, 1),
            "validation": losses,
            "datasets": [source.model_dump(mode="json") for source in self.training.datasets],
            "seed": self.training.seed,
            "episodes": len(self.data.first),
            "frames": int((self.data.stop - self.data.first).sum()),
        }
        with self.trainer.averaged() as model:
            save_bundle(
                self.output / "bundle",
                Bundle(
                    model,
                    self.file,
                    self.contract,
                    self.start.state_normalizer,
                    self.start.action_normalizer,
                    self.start.tokenizer,
                    provenance=facts,
                    instructions=_instructions(self.data),
                ),
            )


def _instructions(data: Demonstrations) -> dict[str, list[str]]:
    """Task name -> the sentences it was shown with."""
    shown: dict[str, set[str]] = {}
    for name, text in zip(data.task_names, data.instruction, strict=True):
        shown.setdefault(name, set()).add(data.instructions[text])
    return {name: sorted(texts) for name, texts in sorted(shown.items())}


@dataclass(frozen=True, slots=True)
class Start:
    """What a run begins with."""

    model: VLAModel
    tokenizer: Tokenizer
    state_normalizer: Normalizer | None
    action_normalizer: Normalizer


def _start(file: ModelFile, training: TrainingConfig, contract: RobotContract, data: Demonstrations) -> Start:
    """The bundle or the pre-trained model that the config names, or a fresh model; normalisers it lacks are
    fitted to the data.

    Raises: BundleError, ConfigError where there is none, ConfigError where it has another model config.
    """
    if training.start:
        bundle = load_bundle(training.start)
        check_fits(bundle.contract, contract, file.model)
        _check_same_model(bundle.file, _as_stored(file, bundle.model), training.start)
        return Start(bundle.model, bundle.tokenizer, bundle.state_normalizer, bundle.action_normalizer)
    columns = len(contract.action_names) - (1 if contract.action.gripper else 0)
    action_normalizer = Normalizer.fit(data.actions[:, :columns], contract.action_names[:columns])
    if training.grounding:
        grounded = load_grounding(training.grounding)
        _check_same_model(grounded.file, file, training.grounding)
        return Start(grounded.model, grounded.tokenizer, grounded.state_normalizer, action_normalizer)
    tokenizer = resolve(BACKBONES, file.model.backbone, "backbone").tokenizer(file.model, data.instructions)
    return Start(
        build_model(file.model, contract, tokenizer.vocabulary_size),
        tokenizer,
        fit_state(data.state, contract, file.model),
        action_normalizer,
    )


def _as_stored(file: ModelFile, model: VLAModel) -> ModelFile:
    """The file as a bundle holds it: with what its backbone adds."""
    options = file.model.backbone_options | model.backbone.stored_options()
    return file.model_copy(update={"model": file.model.model_copy(update={"backbone_options": options})})


def _check_same_model(got: ModelFile, expected: ModelFile, where: str) -> None:
    if got.model != expected.model:
        changed = [
            f"{key}: got {value!r}, expected {getattr(expected.model, key)!r}"
            for key, value in got.model
            if value != getattr(expected.model, key)
        ]
        raise ConfigError(
            f"{where}: made with another model config ({'; '.join(changed)}); use its config, or start anew"
        )


def train(run: Run, resume: bool, console: Console) -> None:
    """Run the loop to the end of its budget, or to Ctrl-C, saving and exporting on the way."""
    run.output.mkdir(parents=True, exist_ok=True)
    curves = LossCurves(run.output, resume) if run.group.rank == 0 else None
    if resume:
        run.trainer.resume(run.state_folder)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:5.1f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=1) as progress, _stop_on_signal(run.trainer):
        bar = progress.add_task("training", total=1.0, losses="")
        for report in run.trainer.run():
            if curves is None:
                continue
            curves.add(report)
            progress.update(bar, completed=report.share_done, losses=_line(report))
            if report.validation:
                console.log(
                    f"step {report.progress.step}: validation {_losses(report.validation)}", highlight=False
                )
            if report.progress.step % run.training.export_every == 0:
                _checkpoint(run, curves)
    if curves is None:
        return
    if run.trainer.stop_requested:
        console.log("stopped; saving")
    _checkpoint(run, curves)
    console.log(
        f"{run.output / 'bundle'} after {run.trainer.progress.step} steps, "
        f"{run.trainer.progress.minutes:.1f} minutes"
    )


@contextmanager
def _stop_on_signal(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C, or a cluster's SIGTERM, ends the loop after the step it is in."""

    def stop(*_: object) -> None:
        """Ask the trainer to end after the step it is in; the handler itself interrupts nothing."""
        trainer.stop_requested = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checkpoint(run: Run, curves: LossCurves) -> None:
    run.trainer.save(run.state_folder)
    run.export(curves.last_validation)
    curves.draw()


def _losses(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in losses.items())


def _line(report: StepReport) -> str:
    return f"step {report.progress.step}  lr {report.learning_rate:.1e}  {_losses(report.losses)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("config", type=Path, help="config/training/*.yaml or config/models/*.yaml")
    parser.add_argument("--data", type=Path, nargs="+", default=(), help="LeRobot v3 folders, instead of the config's")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --output stopped")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    group = Group.join()
    console = Console(quiet=group.rank > 0)
    try:
        run = Run(
            options.config,
            options.robot,
            options.output,
            torch.device(options.device),
            group,
            arguments,
            options.data,
        )
        train(run, options.resume, console)
    except VlaError as problem:
        console.print(f"[red]{problem}[/red]")
        return 1
    finally:
        group.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())

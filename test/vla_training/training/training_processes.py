"""A scenario and its arguments in, what several processes found out: they train together over gloo, no launcher."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from torch.distributed.tensor import DTensor

from vla_training.train import train
from vla_training.training.report import StepReport, ValidationReport
from vla_training.training.run import Run

QUIET = Console(quiet=True)
TIMEOUT_S = 280.0


def together(processes: int, scenario: str, *arguments: object, killed: bool = False) -> None:
    """Run a scenario in fresh processes; with `killed` each must die of SIGKILL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes),
             "LOCAL_WORLD_SIZE": str(processes), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent), *sys.path])
    command = [sys.executable, __file__, scenario, *map(str, arguments)]
    members = []
    for rank in map(str, range(processes)):
        environment = os.environ | group | {"RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": paths}
        members.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    try:
        for member in members:
            _, complaint = member.communicate(timeout=TIMEOUT_S)
            assert member.returncode == (-signal.SIGKILL if killed else 0), complaint
    finally:
        for member in members:
            member.kill()


def first_step_of(config: Path, output: Path) -> dict[str, torch.Tensor]:
    """Of a run's first step: the gradients before clipping, their norm, and the weights after it; all of them whole."""
    found: dict[str, torch.Tensor] = {}
    run = Run(config, "tabletop", output, "cpu")
    clip = run.accelerator.clip_grad_norm_

    def noted(parameters: object, limit: float) -> object:
        for name, weight in run.stepper.model.named_parameters():
            if weight.grad is not None:
                found[f"gradient/{name}"] = _whole(weight.grad)
        return clip(parameters, limit)

    run.accelerator.clip_grad_norm_ = noted
    report = next(run.trainer.run())
    weights = {f"weight/{name}": _whole(weight) for name, weight in run.stepper.model.named_parameters()}
    return found | weights | {"gradient_norm": torch.tensor(report.gradient_norm)}


def first_step(*pairs: str) -> None:
    """CONFIG RESULT …: what the first step of each config gives, written by the first process."""
    for config, result in zip(pairs[::2], pairs[1::2], strict=True):
        found = first_step_of(Path(config), Path(result).with_suffix(""))
        if os.environ["RANK"] == "0":
            torch.save(found, result)


def sharded(config: str, output: str) -> None:
    """Two steps, a save, a resume in a fresh run: whether both hold the same, and how many bytes this process holds."""
    run = Run(Path(config), "tabletop", Path(output), "cpu")
    weights = dict(run.stepper.model.named_parameters())
    whole = sum(weight.numel() * weight.element_size() for weight in weights.values())
    train(run, resume=False, console=QUIET)
    again = Run(Path(config), "tabletop", Path(output), "cpu")
    again.trainer.resume(again.state_folder)
    pairs = zip(run.trainer.tensors().items(), again.trainer.tensors().items(), strict=True)
    same = all(one == other and torch.equal(_local(a), _local(b)) for (one, a), (other, b) in pairs)
    held = sum(_local(weight).nbytes for weight in weights.values())
    facts = {"same": same, "steps": again.trainer.progress.step, "bytes": held, "whole": whole}
    (Path(output) / f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(facts))


def broken(config: str, output: str, resume: str) -> None:
    """A whole run and one that is killed after its fifth step, or only the rest of that; each notes its losses."""
    if resume == "False":
        noted_run(Path(config), Path(output) / "whole")
    noted_run(Path(config), Path(output) / "broken", resume=resume == "True", kill_after=0 if resume == "True" else 5)


def noted_run(config: Path, output: Path, resume: bool = False, kill_after: int = 0) -> None:
    """A run that notes every step's losses, digit by digit, in OUTPUT.RANK.jsonl, and kills itself after that step."""
    run = Run(config, "tabletop", output, "cpu")
    path, steps = Path(f"{output}.{run.accelerator.process_index}.jsonl"), run.trainer.run

    def noted() -> Iterator[StepReport | ValidationReport]:
        for report in steps():
            if isinstance(report, StepReport):
                with path.open("a") as file:
                    file.write(json.dumps([report.step, dict(report.losses), report.gradient_norm]) + "\n")
                if report.step == kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            yield report

    run.trainer.run = noted
    train(run, resume=resume, console=QUIET)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


SCENARIOS: dict[str, Callable[..., None]] = {"first_step": first_step, "sharded": sharded, "broken": broken}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](*sys.argv[2:])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

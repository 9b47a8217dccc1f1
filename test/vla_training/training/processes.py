"""A scenario and its arguments in, what several processes of it found out: they train together over gloo, without a launcher."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch.distributed.tensor import DTensor

from vla_training.train import train
from vla_training.training.report import StepReport
from vla_training.training.run import Run
from vla_training.training.state import local_bytes
from vla_training.training.stepper import Stepper
from vla_training.training.trainer import Trainer

QUIET = Console(quiet=True)
TIMEOUT_S = 170.0


def together(processes: int, scenario: str, *arguments: object, killed: bool = False) -> None:
    """Run a scenario in fresh processes; with `killed` each must die of SIGKILL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes),
             "LOCAL_WORLD_SIZE": str(processes), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent), *sys.path])
    members = [subprocess.Popen([sys.executable, __file__, scenario, *map(str, arguments)], stderr=subprocess.PIPE, text=True,
                                env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": paths})
               for rank in range(processes)]
    try:
        for member in members:
            _, complaint = member.communicate(timeout=TIMEOUT_S)
            assert member.returncode == (-signal.SIGKILL if killed else 0), complaint
    finally:
        for member in members:
            member.kill()


def gradients_of(config: Path, output: Path) -> dict[str, torch.Tensor]:
    """The gradients of a run's first step, whole, before clipping."""
    found: dict[str, torch.Tensor] = {}
    run = Run(config, "tabletop", output, "cpu")
    clip = run.accelerator.clip_grad_norm_

    def noted(parameters: object, limit: float) -> object:
        for name, weight in run.stepper.model.named_parameters():
            if weight.grad is not None:
                gradient = weight.grad.full_tensor() if isinstance(weight.grad, DTensor) else weight.grad
                found[name] = gradient.detach().clone()
        return clip(parameters, limit)

    run.accelerator.clip_grad_norm_ = noted
    next(run.trainer.run())
    return found


def gradients(*pairs: str) -> None:
    """CONFIG RESULT …: the first step's gradients of each config, written by the first process."""
    for config, result in zip(pairs[::2], pairs[1::2], strict=True):
        found = gradients_of(Path(config), Path(result).with_suffix(""))
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
    facts = {"same": same, "steps": again.trainer.progress.step, "bytes": local_bytes(weights), "whole": whole}
    (Path(output) / f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(facts))


def losses(config: str, output: str, kill_after: str, resume: str) -> None:
    """A run that notes every step's losses, digit by digit, in OUTPUT.RANK.jsonl; it kills itself after that step."""
    rank = os.environ.get("RANK", "0")
    record_losses(Path(f"{output}.{rank}.jsonl"), int(kill_after))
    train(Run(Path(config), "tabletop", Path(output), "cpu"), resume=resume == "True", console=QUIET)


def record_losses(path: Path, kill_after: int) -> None:
    """From here on every trainer of this process does so."""
    whole = Trainer.run

    def noted(trainer: Trainer) -> object:
        for report in whole(trainer):
            if isinstance(report, StepReport):
                with path.open("a") as file:
                    file.write(json.dumps([report.step, dict(report.losses), report.gradient_norm]) + "\n")
                if report.step == kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            yield report

    Trainer.run = noted


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


SCENARIOS: dict[str, Callable[..., None]] = {"gradients": gradients, "sharded": sharded, "losses": losses}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](*sys.argv[2:])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

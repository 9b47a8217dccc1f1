"""A model and settings in, its optimizer, schedule and averaged weights out, to save and restore exactly."""

from __future__ import annotations

import json
import math
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from vla_policy.errors import ConfigError


def learning_rate_at(progress: float, peak: float, warmup_ratio: float, final_ratio: float) -> float:
    """Linear warm-up over the first `warmup_ratio` of the budget, then a cosine down to `final_ratio` of the
    peak.
    """
    if progress < warmup_ratio:
        return peak * progress / warmup_ratio
    rest = min(1.0, (progress - warmup_ratio) / max(1e-9, 1.0 - warmup_ratio))
    return peak * (final_ratio + (1.0 - final_ratio) * 0.5 * (1.0 + math.cos(math.pi * rest)))


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; vectors (biases, norms) are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    plain = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 arithmetic with float32 weights, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class AveragedWeights:
    """Exponential moving average of a model's weights; steadier in closed loop than the last step's
    weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's weights; the decay warms up as (1 + n) / (10 + n)."""
        self.steps += 1
        share = 1.0 - min(self._decay, (1 + self.steps) / (10 + self.steps))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, share)
            else:
                self.weights[name].copy_(value)


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedWeights,
    progress: dict[str, Any],
) -> None:
    """Write everything a run needs to go on, atomically: safetensors and JSON."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_model(model, partial / "model.safetensors")
    save_file({name: value.contiguous() for name, value in average.weights.items()}, partial / "average.safetensors")
    moments = {
        f"{i}.{name}": value
        for i, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    save_file(moments, partial / "optimizer.safetensors")
    (partial / "progress.json").write_text(json.dumps(progress | {"average_steps": average.steps}, indent=2))
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        os.replace(folder, previous)
    os.replace(partial, folder)
    shutil.rmtree(previous, ignore_errors=True)


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedWeights
) -> dict[str, Any]:
    """Restore what `save_state` wrote; returns its progress. Raises: ConfigError where there is nothing to
    resume.
    """
    if not (folder / "progress.json").is_file():
        folder = folder.with_name(folder.name + ".previous")
    if not (folder / "progress.json").is_file():
        raise ConfigError(f"{folder}: nothing to resume there; start the run without --resume")
    load_model(model, folder / "model.safetensors")
    for name, value in load_file(folder / "average.safetensors").items():
        average.weights[name].copy_(value)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    progress = json.loads((folder / "progress.json").read_text())
    average.steps = progress.pop("average_steps")
    return progress

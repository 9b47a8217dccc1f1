"""A model and settings in, its learning rate, optimizer and averaged weights out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def learning_rate_at(share: float, peak: float, warmup_ratio: float, final_ratio: float,
                     schedule: str = "cosine") -> float:
    """The rate after `share` of the budget: linear warm-up over its first `warmup_ratio`, then a cosine down to
    `final_ratio` of the peak, or the peak to the end.
    """
    if share < warmup_ratio:
        return peak * share / warmup_ratio
    if schedule == "constant":
        return peak
    rest = min(1.0, (share - warmup_ratio) / max(1e-9, 1.0 - warmup_ratio))
    return peak * (final_ratio + (1.0 - final_ratio) * 0.5 * (1.0 + math.cos(math.pi * rest)))


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name; shared ones once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over what is trained; vectors (biases, norms) are not decayed."""
    decayed = [value for value in trained(model).values() if value.dim() >= 2]
    plain = [value for value in trained(model).values() if value.dim() < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 arithmetic with float32 weights, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class AveragedWeights:
    """Exponential moving average of the trained weights; steadier in closed loop than the last step's weights.

    Frozen weights are not copied; sharded ones stay sharded.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in trained(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's weights; the decay warms up as (1 + n) / (10 + n)."""
        self.steps += 1
        share = 1.0 - min(self._decay, (1 + self.steps) / (10 + self.steps))
        for name, value in trained(model).items():
            self.weights[name].lerp_(value, share)

    def adopt(self, model: nn.Module) -> None:
        """The model takes the averaged weights for its own."""
        _copy(self.weights, model)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights, for as long as the body runs."""
        current = {name: value.detach().clone() for name, value in trained(model).items()}
        self.adopt(model)
        try:
            yield
        finally:
            _copy(current, model)


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    for name, value in trained(model).items():
        value.copy_(weights[name])

"""The environment that torchrun sets in, a group of equal training processes out; alone, everything here does nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True, slots=True)
class Group:
    """`size` processes train one model, each on its share of every batch; `rank` 0 writes files and talks."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Group:
        """The group that torchrun started, or a group of one."""
        if "WORLD_SIZE" not in os.environ:
            return cls()
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    def average_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its mean over the group."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.div_(self.size).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, value: float) -> float:
        """The value of rank 0, for what must not differ (the share of the budget that is used)."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        if torch.cuda.is_available():
            shared = shared.cuda()
        dist.broadcast(shared, 0)
        return shared.item()

    def leave(self) -> None:
        """Take the group apart."""
        if self.size > 1:
            dist.destroy_process_group()

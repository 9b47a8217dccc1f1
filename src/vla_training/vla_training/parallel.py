"""torchrun's environment in, a group of equal training processes out; alone, all of this does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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

    def largest(self, *values: float) -> list[float]:
        """For each value the largest in the group: for what all must see alike, as when to end."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(
            values, dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu"
        )
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return shared.tolist()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Rank 0 does the body first, then the others: what it leaves on disk they find there."""
        if self.size > 1 and self.rank > 0:
            dist.barrier()
        yield
        if self.size > 1 and self.rank == 0:
            dist.barrier()

    def leave(self) -> None:
        """Take the group apart."""
        if self.size > 1:
            dist.destroy_process_group()

"""The rows that a robot will execute meanwhile in, what pulls a sampled chunk towards them out: real-time chunking.

Black et al., "Real-Time Execution of Action Chunking Flow Policies" (https://arxiv.org/abs/2506.07339): the rows that
will be executed before the new chunk arrives are frozen, the further ones of the chunk before pull ever less, and the
pull is the pseudo-inverse guidance of Pokle et al. (https://arxiv.org/abs/2310.04432), its weight clipped.

Shapes: B robots, K chunk, A arm dimensions, E = K * A, a flat chunk, one frame each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GUIDANCE_LIMIT = 5.0  # beta of the paper; more lets few steps overshoot


@dataclass(frozen=True, slots=True)
class Goal:
    """What one robot's chunk goes on from. rows: float32 (R, A), the normalised arm rows left of the chunk before, from
    the new observation's instant on. frozen: how many of them are executed meanwhile.
    """

    rows: NDArray[np.float32]
    frozen: int


@dataclass(frozen=True, slots=True)
class Inpainting:
    """What new chunks go on from.

    flat_B1E: the chunks before, normalised, aligned to the new ones' rows; 0 where there are none. weight_B1E: how much
    each number of them counts, 1 where frozen, 0 where there is none.
    """

    flat_B1E: Tensor
    weight_B1E: Tensor

    @classmethod
    def of(cls, goals: Sequence[Goal], chunk_size: int, device: torch.device | str = "cpu") -> Inpainting:
        """From the goals of B robots. Rows after K are left out."""
        flat = np.zeros((len(goals), chunk_size, goals[0].rows.shape[1]), np.float32)
        weight = np.zeros_like(flat)
        for index, goal in enumerate(goals):
            count = min(len(goal.rows), chunk_size)
            flat[index, :count] = goal.rows[:count]
            weight[index] = soft_mask(count, min(goal.frozen, count), chunk_size)[:, None]
        return cls(*(torch.from_numpy(part).flatten(1)[:, None].to(device) for part in (flat, weight)))

    def guided(self, clean_of: Callable[[Tensor], Tensor], point_B1E: Tensor, time: float) -> Tensor:
        """The clean chunk that `clean_of` guesses from a point of the straight path, pulled towards the rows before.

        point_B1E: time * chunk + (1 - time) * noise. time: 0 is noise, below 1.
        """
        with torch.enable_grad():
            point = point_B1E.detach().clone().requires_grad_()
            clean = clean_of(point)
            error = (self.flat_B1E - clean.detach()) * self.weight_B1E
            pull, = torch.autograd.grad(clean, point, error)
        return clean.detach() + (1 - time) * _weight(time) * pull

    def keep(self, flat_B1E: Tensor) -> Tensor:
        """The sampled chunks with the frozen rows in their place."""
        return torch.where(self.weight_B1E >= 1.0, self.flat_B1E, flat_B1E)


def soft_mask(rows: int, frozen: int, chunk_size: int) -> NDArray[np.float32]:
    """Weights (K,) of the paper's equation 5: 1 for `frozen` rows, falling to 0 after `rows`, of `chunk_size`."""
    share = np.clip((rows - np.arange(chunk_size)) / (rows - frozen + 1), 0.0, 1.0)
    weights = share * np.expm1(share) / (np.e - 1)
    weights[:frozen] = 1.0
    return weights.astype(np.float32)


def _weight(time: float) -> float:
    """Of the guidance at a time of the path, clipped (equations 2 and 4)."""
    if time == 0:
        return GUIDANCE_LIMIT
    return min(GUIDANCE_LIMIT, (time**2 + (1 - time) ** 2) / (time * (1 - time)))

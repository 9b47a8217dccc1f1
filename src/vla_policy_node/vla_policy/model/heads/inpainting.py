"""The rows that a robot will execute meanwhile in, what pulls a sampled chunk towards them out: real-time chunking.

Black et al., "Real-Time Execution of Action Chunking Flow Policies" (https://arxiv.org/abs/2506.07339): the rows that
will be executed before the new chunk arrives are frozen, the further ones of the chunk before pull ever less, and the
pull is the pseudo-inverse guidance of Pokle et al. (https://arxiv.org/abs/2310.04432), its weight clipped.

Shapes: B batch, W window, K chunk, A arm dimensions, E = K * A, a flat chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GUIDANCE_LIMIT = 5.0  # beta of the paper; more lets few steps overshoot


@dataclass(frozen=True, slots=True)
class Inpainting:
    """What a new chunk goes on from.

    flat_E: the chunk before, normalised, aligned to the new one's rows; 0 where it has none. weight_E: how much each
    number of it counts, 1 where frozen, 0 where there is none. frozen: rows that are kept as they are.
    """

    flat_E: Tensor
    weight_E: Tensor
    frozen: int

    @classmethod
    def of(cls, rows_RA: Tensor, frozen: int, chunk_size: int) -> Inpainting:
        """From R rows of normalised arm actions, of which `frozen` are executed meanwhile. Rows after K are left out.
        """
        rows_RA = rows_RA[:chunk_size]
        count, arm = rows_RA.shape
        flat = rows_RA.new_zeros(chunk_size, arm)
        flat[:count] = rows_RA
        mask = soft_mask(count, min(frozen, count), chunk_size).to(rows_RA)
        return cls(flat.flatten(), mask.repeat_interleave(arm), min(frozen, count))

    def guided(self, clean_of: Callable[[Tensor], Tensor], point_BWE: Tensor, time: float) -> Tensor:
        """The clean chunk that `clean_of` guesses from a point of the straight path, pulled towards the rows before.

        point_BWE: time * chunk + (1 - time) * noise. time: 0 is noise, below 1.
        """
        with torch.enable_grad():
            point = point_BWE.detach().clone().requires_grad_()
            clean = clean_of(point)
            error = ((self.flat_E - clean) * self.weight_E).detach()
            pull, = torch.autograd.grad(clean, point, error)
        return clean.detach() + (1 - time) * _weight(time) * pull

    def keep(self, flat_BWE: Tensor) -> Tensor:
        """The sampled chunk with the frozen rows in their place."""
        return torch.where(self.weight_E >= 1.0, self.flat_E, flat_BWE) if self.frozen else flat_BWE


def soft_mask(rows: int, frozen: int, chunk_size: int) -> Tensor:
    """Weights (K,) of the paper's equation 5: 1 for `frozen` rows, falling to 0 after `rows`, of `chunk_size`."""
    weights = torch.zeros(chunk_size)
    weights[:frozen] = 1.0
    for row in range(frozen, min(rows, chunk_size)):
        share = (rows - row) / (rows - frozen + 1)
        weights[row] = share * math.expm1(share) / (math.e - 1)
    return weights


def _weight(time: float) -> float:
    """Of the guidance at a time of the path, clipped (equations 2 and 4)."""
    if time == 0:
        return GUIDANCE_LIMIT
    return min(GUIDANCE_LIMIT, (time**2 + (1 - time) ** 2) / (time * (1 - time)))

"""numpy arrays in, tensors on the device out, and back: on a GPU through pinned buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Transfer:
    """Uploads do not wait for the GPU; a download does, so that buffers are free again after it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pairs: dict[tuple[str, tuple[int, ...]], tuple[Tensor, Tensor]] = {}
        self._landings: dict[tuple[int, torch.Size], Tensor] = {}

    def upload(self, what: str, rows: Sequence[Any]) -> Tensor:
        """Arrays, or sequences of arrays, of equal shapes -> one tensor on the device with a dimension for each level.

        On a GPU the tensor is good until the next upload of the same `what` and shape.
        """
        if self._device.type != "cuda":
            return torch.from_numpy(np.asarray(rows)).to(self._device)
        first, lead = rows, []
        while not isinstance(first, np.ndarray):
            lead.append(len(first))
            first = first[0]
        shape = (*lead, *first.shape)
        if (what, shape) not in self._pairs:
            staged = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, first.dtype)).dtype, pin_memory=True)
            self._pairs[what, shape] = staged, torch.empty_like(staged, device=self._device)
        staged, landed = self._pairs[what, shape]
        _fill(staged.numpy(), rows)
        return landed.copy_(staged, non_blocking=True)

    def download(self, parts: Sequence[Tensor]) -> list[NDArray[Any]]:
        """Tensors on the device -> arrays of their own, all of them by one wait."""
        if self._device.type != "cuda":
            return [part.cpu().numpy() for part in parts]
        landings = []
        for index, part in enumerate(parts):
            if (index, part.shape) not in self._landings:
                self._landings[index, part.shape] = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
            landings.append(self._landings[index, part.shape].copy_(part, non_blocking=True))
        torch.cuda.current_stream(self._device).synchronize()
        return [landed.numpy().copy() for landed in landings]


def _fill(target: NDArray[Any], rows: Sequence[Any]) -> None:
    if isinstance(rows, np.ndarray):
        target[...] = rows
        return
    for part, row in zip(target, rows, strict=True):
        _fill(part, row)

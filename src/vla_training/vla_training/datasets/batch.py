"""Arrays of some windows in, the tensors of a training batch out.

Shapes: B windows, W frames, V cameras, S image side, P state, L text, K rows of an action chunk, A arm columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """What the model is trained on.

    images_BWVSS3: uint8, RGB. state_BWP: float32, normalised; P is 0 for a model that feels nothing. text_ids_BL:
    int64. text_mask_BL: True where text is. arm_BWKA: float32 in [-1, 1]. gripper_BWK: float32, 0 closed to 1 open,
    None without a gripper. rows_BWK: True where a row counts, False in padding. place_BW3: float32, None where no
    place is known.
    """

    images_BWVSS3: Tensor
    state_BWP: Tensor
    text_ids_BL: Tensor
    text_mask_BL: Tensor
    arm_BWKA: Tensor
    gripper_BWK: Tensor | None
    rows_BWK: Tensor
    place_BW3: Tensor | None

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray | None]) -> Batch:
        """Tensors that share the arrays' memory."""
        return cls(
            **{
                name: None if value is None else torch.from_numpy(np.ascontiguousarray(value))
                for name, value in arrays.items()
            }
        )

    def __len__(self) -> int:
        return len(self.images_BWVSS3)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which a copy to a GPU need not wait."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: None if value is None else change(value) for name, value in values.items()})

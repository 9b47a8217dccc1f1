"""Camera images on the model's device in, the square ones it sees out: `resize` again, for images already uploaded.

The same weights as OpenCV's (mean of the covered area; linear where the image must grow), summed in float32. OpenCV
rounds sums on the way, so a value may differ by one grey level.

Shapes: B images, H height, W width, S side.
"""

from __future__ import annotations

import torch
from torch import Tensor


class DeviceResize:
    """Resizes to `size` by two multiplications with weights that are kept for every size and device met."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[tuple[int, bool, torch.device], Tensor] = {}

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> uint8 (B, S, S, 3), stretched to a square."""
        height, width = images_BHW3.shape[1:3]
        if (height, width) == (self._size, self._size):
            return images_BHW3
        grows = min(height, width) < self._size
        rows_SH, columns_SW = (self._weights(side, grows, images_BHW3.device) for side in (height, width))
        planes_B3HW = images_BHW3.movedim(-1, 1).float()
        square_B3SS = rows_SH @ (planes_B3HW @ columns_SW.T)
        return square_B3SS.add(0.5).clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous()

    def _weights(self, side: int, grows: bool, device: torch.device) -> Tensor:
        if (side, grows, device) not in self._kept:
            weights = linear_weights(side, self._size) if grows else area_weights(side, self._size)
            self._kept[side, grows, device] = weights.to(device)
        return self._kept[side, grows, device]


def area_weights(side: int, size: int) -> Tensor:
    """(size, side): how much of each source pixel an output pixel covers; rows sum to one. size <= side."""
    edges = torch.arange(size + 1, dtype=torch.float64) * side / size
    begin, end = edges[:-1, None], edges[1:, None]
    pixel = torch.arange(side, dtype=torch.float64)
    covered = (torch.minimum(end, pixel + 1) - torch.maximum(begin, pixel)).clamp(min=0)
    return (covered * size / side).float()


def linear_weights(side: int, size: int) -> Tensor:
    """(size, side): linear interpolation at the middles of pixels, the border repeated."""
    place = ((torch.arange(size, dtype=torch.float64) + 0.5) * side / size - 0.5).clamp(0, side - 1)
    left = place.floor().long().clamp(max=max(side - 2, 0))
    share = (place - left).clamp(0, 1)
    weights = torch.zeros(size, side, dtype=torch.float64)
    rows = torch.arange(size)
    weights[rows, left] = 1 - share
    weights[rows, (left + 1).clamp(max=side - 1)] += share
    return weights.float()

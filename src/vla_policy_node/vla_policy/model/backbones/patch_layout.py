"""Images in, the flat patches that some vision towers read out; token masks in, positions in three axes out.

Source: https://arxiv.org/abs/2409.12191. Shapes: M images, S image side, P patches of all images,
B batch, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def flat_patches(pixels_M3SS: Tensor, patch: int, merge: int, frames: int) -> Tensor:
    """Square images -> patches (P, 3 * frames * patch * patch).

    Patches that the tower will merge into one token, `merge` x `merge` of them, follow each other. A still
    image is repeated to the `frames` that a patch spans in time.
    """
    images, channels, side, _ = pixels_M3SS.shape
    cells = side // (patch * merge)
    parts = pixels_M3SS[:, None].expand(-1, frames, -1, -1, -1)
    parts = parts.reshape(images, frames, channels, cells, merge, patch, cells, merge, patch)
    parts = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return parts.reshape(-1, channels * frames * patch * patch)


def patch_grid(images: int, side: int) -> Tensor:
    """Time, rows and columns of the patches of so many still images, `side` x `side` patches each: (M, 3)."""
    return torch.tensor([[1, side, side]]).expand(images, -1)


def rope_positions(mask_BT: Tensor, visual_BT: Tensor, side: int) -> Tensor:
    """Time, row and column of every token, (3, B, T), where images are `side` x `side` tokens.

    mask_BT: True where a token is real. Text counts up by one. An image stands at one time; its rows and
    columns count from there, and what follows it begins `side` later.
    """
    visual_before = visual_BT.cumsum(-1)
    text_before = (mask_BT & ~visual_BT).cumsum(-1)
    index = (visual_before - 1).clamp(min=0)  # of a visual token among all of them
    image, place = index // side**2, index % side**2
    start = text_before + image * side
    of_image = torch.stack([start, start + place // side, start + place % side])
    of_text = (text_before - 1 + visual_before // side**2 * side).clamp(min=0)
    return torch.where(visual_BT, of_image, of_text)

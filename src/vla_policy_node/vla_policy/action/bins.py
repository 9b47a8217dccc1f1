"""Normalised actions in, the numbers of their bins out, and back: the discrete action space.

RoboVLMs' maths (https://github.com/Robot-VLAs/RoboVLMs, action_tokenizer): 256 edges from -1 to 1 make 255
bins; a value's digit counts the edges at or below it, 1..256. Index here = digit - 1, so 0..255; 254 and
255 both stand for the last bin.
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 256


def to_bins(values: Tensor) -> Tensor:
    """Values (...), clipped to [-1, 1] -> indices int64 (...), 0..255."""
    edges = torch.linspace(-1, 1, BINS, device=values.device)
    return torch.bucketize(values.float().clamp(-1, 1).contiguous(), edges, right=True) - 1


def bin_centres(device: torch.device | str = "cpu") -> Tensor:
    """The value that each index stands for, float32 (256,)."""
    edges = torch.linspace(-1, 1, BINS, device=device)
    centres = (edges[1:] + edges[:-1]) / 2
    return torch.cat([centres, centres[-1:]])


def from_bins(indices: Tensor) -> Tensor:
    """Indices (...) -> the centres of their bins, float32 (...)."""
    return bin_centres(indices.device)[indices]


def token_ids(vocabulary_size: int, reserved: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """The token id of each index, int64 (256,): counted down from the vocabulary's end, less `reserved` ids
    there.
    """
    return vocabulary_size - reserved - 1 - torch.arange(BINS, device=device)

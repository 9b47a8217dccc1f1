"""The features of a window in, features that know the past out: a small transformer that looks back only."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from vla_policy.errors import ConfigError
from vla_policy.strict import StrictModel


class HistoryOptions(StrictModel):
    """width, layers, heads: of the transformer over the window; heads must divide the width."""

    width: Annotated[int, Field(ge=1)] = 128
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4

    def check(self) -> None:
        """Refuse a width that does not fall into whole heads. Raises: ConfigError."""
        if self.width % self.heads:
            raise ConfigError(f"head_options.width: got {self.width} for {self.heads} heads, expected a "
                              f"multiple; use {-(-self.width // self.heads) * self.heads}")


class CausalHistory(nn.Module):
    """(B, W, D) -> (B, W, width); W up to `frames`. Places count from the window's first frame."""

    def __init__(self, hidden_size: int, options: HistoryOptions, frames: int) -> None:
        super().__init__()
        width = options.width
        self.enter = nn.Linear(hidden_size, width)
        self.places = nn.Parameter(torch.randn(frames, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, options.heads, 4 * width, dropout=0.0, activation="gelu",
                                       batch_first=True, norm_first=True) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, features_BWD: Tensor) -> Tensor:
        """(B, W, D) -> (B, W, width); frame w of the result knows frames 0..w."""
        frames = features_BWD.shape[1]
        hidden = self.enter(features_BWD) + self.places[:frames]
        ahead = torch.ones(frames, frames, dtype=torch.bool, device=hidden.device).triu(1)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=ahead)
        return self.norm(hidden)

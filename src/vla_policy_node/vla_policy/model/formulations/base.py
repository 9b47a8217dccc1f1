"""Frames of a window in, hidden states of action queries out: what every formulation shares.

Shapes: B batch, W window, V cameras, S image side, N visual tokens of a frame, C their width, P state, L
text, D width, Q action queries of a frame, T action tokens written so far (autoregressive heads only).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from vla_policy.model.backbones.base import Backbone
from vla_policy.model.config import ModelConfig

Memory = tuple[Tensor, ...]


class Formulation(nn.Module, ABC):
    """How a window of frames becomes hidden states for the head. It looks back only.

    fuses_history: whether the backbone sees the whole window at once, so that the head need not.
    """

    fuses_history: ClassVar[bool]

    def __init__(self, config: ModelConfig, backbone: Backbone, state_size: int, queries: int) -> None:
        """queries: Q, as the head wants them."""
        super().__init__()
        width = backbone.hidden_size
        self.state_embedding = nn.Linear(state_size, width) if config.proprioception else None
        self.action_query = nn.Parameter(torch.randn(1, queries, width) * backbone.query_scale)

    @abstractmethod
    def encode_frame(self, backbone: Backbone, pixels_BV3SS: Tensor, state_BP: Tensor, text_BLD: Tensor,
                     text_mask_BL: Tensor) -> Memory:
        """What is kept of a frame, tensors (B, ...). It does not depend on any other frame."""

    @abstractmethod
    def features(self, backbone: Backbone, memory_BW: Memory, text_BLD: Tensor, text_mask_BL: Tensor,
                 tokens_BWTD: Tensor | None = None) -> Tensor:
        """Hidden states of every frame's action queries and of the action tokens behind them, (B, W, Q + T,
        D).
        """

    @abstractmethod
    def newest(self, backbone: Backbone, memory_BW: Memory, text_BLD: Tensor, text_mask_BL: Tensor,
               tokens_B1TD: Tensor | None = None) -> Tensor:
        """The part of `features` that a head needs to act on the newest frame, (B, 1 or W, Q + T, D)."""


class PromptFormulation(Formulation):
    """Keeps a frame's visual tokens and state: the text tower reads several frames in one sequence."""

    fuses_history = True

    def encode_frame(self, backbone: Backbone, pixels_BV3SS: Tensor, state_BP: Tensor, text_BLD: Tensor,
                     text_mask_BL: Tensor) -> Memory:
        """Visual tokens (B, N, C) and the state (B, P)."""
        return backbone.encode_images(pixels_BV3SS), state_BP

    def features(self, backbone: Backbone, memory_BW: Memory, text_BLD: Tensor, text_mask_BL: Tensor,
                 tokens_BWTD: Tensor | None = None) -> Tensor:
        """One sequence for every frame: it holds that frame and those before it, so none sees what comes
        later.
        """
        hidden = []
        for frames in range(1, memory_BW[0].shape[1] + 1):
            seen = tuple(part[:, :frames] for part in memory_BW)
            tokens = None if tokens_BWTD is None else tokens_BWTD[:, frames - 1: frames]
            hidden.append(self.newest(backbone, seen, text_BLD, text_mask_BL, tokens))
        return torch.cat(hidden, 1)

"""A frame in, one vector out; the head fuses the vectors of a window.

The "policy head" formulation of RoboVLMs (https://arxiv.org/abs/2412.14058): every frame passes the backbone
once, by itself.

Shapes: B batch, W window, V cameras, S image side, P state, L text, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_policy.model.backbones.base import Backbone
from vla_policy.model.config import ModelConfig


class PolicyHead(nn.Module):
    """Remembers of each frame the hidden state of one learned action query."""

    def __init__(self, config: ModelConfig, hidden_size: int, state_size: int) -> None:
        super().__init__()
        self.state_embedding = nn.Linear(state_size, hidden_size) if config.proprioception else None
        self.action_query = nn.Parameter(torch.randn(1, 1, hidden_size) * 0.02)

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Every backbone and window fits this formulation; its head says whether it can use the window."""

    def encode_frame(self, backbone: Backbone, pixels_BV3SS: Tensor, state_BP: Tensor, text_BLD: Tensor,
                     text_mask_BL: Tensor) -> Tensor:
        """What is kept of a frame, (B, D)."""
        queries = [self.action_query.expand(len(pixels_BV3SS), -1, -1)]
        if self.state_embedding is not None:
            queries.insert(0, self.state_embedding(state_BP)[:, None])
        visual_BND = backbone.encode_images(pixels_BV3SS)
        return backbone.fuse(visual_BND, text_BLD, text_mask_BL, torch.cat(queries, 1))[:, -1]

    def features(self, memory_BWD: Tensor) -> Tensor:
        """One feature per frame for the head, (B, W, D): here what was kept of the frames is that already."""
        return memory_BWD

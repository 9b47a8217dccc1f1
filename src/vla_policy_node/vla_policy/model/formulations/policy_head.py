"""A frame in, one vector out; the head fuses the vectors of a window.

The "policy head" formulation of RoboVLMs (https://arxiv.org/abs/2412.14058): every frame passes the backbone
once, by itself.

Shapes: B batch, W window, V cameras, S image side, P state, L text, Q action queries, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_policy.model.backbones.base import Backbone
from vla_policy.model.formulations.base import Formulation, Memory


class PolicyHead(Formulation):
    """Remembers of each frame the hidden states of its learned action queries."""

    fuses_history = False

    def encode_frame(self, backbone: Backbone, pixels_BV3SS: Tensor, state_BP: Tensor, text_BLD: Tensor,
                     text_mask_BL: Tensor) -> Memory:
        """The hidden states (B, Q, D)."""
        action_BQD = self.action_query.expand(len(pixels_BV3SS), -1, -1).to(text_BLD.dtype)
        queries = [action_BQD]
        if self.state_embedding is not None:
            queries.insert(0, self.state_embedding(state_BP)[:, None].to(text_BLD.dtype))
        visual_BND = backbone.encode_images(pixels_BV3SS)
        hidden = backbone.fuse(visual_BND, text_BLD, text_mask_BL, torch.cat(queries, 1))
        return (hidden[:, -action_BQD.shape[1]:],)

    def features(self, backbone: Backbone, memory_BW: Memory, text_BLD: Tensor, text_mask_BL: Tensor,
                 tokens_BWTD: Tensor | None = None) -> Tensor:
        """What was kept of the frames is that already; action tokens find no sequence here to stand in."""
        assert tokens_BWTD is None, "vla_policy.model.combinations refuses heads that write tokens"
        return memory_BW[0]

    newest = features

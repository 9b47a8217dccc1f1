"""W blocks in one sequence, one per frame: [images | instruction | state, action queries] and again.

The "interleaved" formulation of RoboVLMs (https://arxiv.org/abs/2412.14058). Each frame's actions are read
at its own action queries, and a robot gets those of the newest frame.

Shapes: B batch, W window, N visual tokens of a frame, C their width, P state, L text, Q action queries, D
width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_policy.model.backbones.base import Backbone
from vla_policy.model.formulations.base import Memory, PromptFormulation


class Interleaved(PromptFormulation):
    """The window as one sequence of blocks, its visual tokens kept from step to step."""

    def features(self, backbone: Backbone, memory_BW: Memory, text_BLD: Tensor, text_mask_BL: Tensor,
                 tokens_BWTD: Tensor | None = None) -> Tensor:
        """One pass for the window where the tower looks back only; else a pass for each frame and those
        before it.
        """
        if backbone.causal:
            return self._blocks(backbone, memory_BW, text_BLD, text_mask_BL)
        return super().features(backbone, memory_BW, text_BLD, text_mask_BL)

    def newest(self, backbone: Backbone, memory_BW: Memory, text_BLD: Tensor, text_mask_BL: Tensor,
               tokens_B1TD: Tensor | None = None) -> Tensor:
        """(B, 1, Q, D) of the last block."""
        return self._blocks(backbone, memory_BW, text_BLD, text_mask_BL)[:, -1:]

    def _blocks(self, backbone: Backbone, memory_BW: Memory, text_BLD: Tensor,
                text_mask_BL: Tensor) -> Tensor:
        """Hidden states of the action queries of every block, (B, W, Q, D)."""
        visual_BWNC, state_BWP = memory_BW
        action = self.action_query.expand(*visual_BWNC.shape[:2], -1, -1)
        queries = [action]
        if self.state_embedding is not None:
            queries.insert(0, self.state_embedding(state_BWP)[:, :, None])
        queries_BWQD = torch.cat(queries, 2).to(text_BLD.dtype)
        hidden = backbone.fuse_blocks(visual_BWNC, text_BLD, text_mask_BL, queries_BWQD)
        return hidden[:, :, -action.shape[2]:]

"""The frames of a window in one prompt: [images of all frames | instruction | states, action queries].

The instruction is read once for the window, as a vision-language model reads a video. Each frame of a
window gets a prompt of its own, so training costs W prompts of growing length; serving costs one, for
visual tokens are kept.

Shapes: B batch, W window, N visual tokens of a frame, C their width, P state, L text, Q action queries, T
action tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_policy.model.backbones.base import Backbone
from vla_policy.model.config import ModelConfig
from vla_policy.model.formulations.base import Memory, PromptFormulation


class Video(PromptFormulation):
    """Several frames in one prompt; a learned vector tells visual tokens and states how old their frame is.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone, state_size: int, queries: int) -> None:
        super().__init__(config, backbone, state_size, queries)
        frames, width, scale = config.history_length, backbone.hidden_size, backbone.query_scale
        self.visual_age = nn.Parameter(torch.randn(frames, 1, backbone.visual_size) * scale)
        self.state_age = nn.Parameter(torch.randn(frames, width) * scale) if state_size else None

    def newest(self, backbone: Backbone, memory_BW: Memory, text_BLD: Tensor, text_mask_BL: Tensor,
               tokens_B1TD: Tensor | None = None) -> Tensor:
        """(B, 1, Q + T, D): one prompt of all frames at hand."""
        visual_BWNC, state_BWP = memory_BW
        batch, frames = visual_BWNC.shape[:2]
        # Age 0 is the newest frame, however many came before it.
        visual_BWNC = visual_BWNC + self.visual_age[:frames].flip(0).to(visual_BWNC.dtype)
        queries = [self.action_query.expand(batch, -1, -1)]
        if self.state_embedding is not None:
            queries.insert(0, self.state_embedding(state_BWP) + self.state_age[:frames].flip(0))
        if tokens_B1TD is not None:
            queries.append(tokens_B1TD[:, 0])
        read = sum(part.shape[1] for part in queries[self.state_embedding is not None:])
        hidden = backbone.fuse(visual_BWNC.flatten(1, 2), text_BLD, text_mask_BL,
                               torch.cat([part.to(text_BLD.dtype) for part in queries], 1))
        return hidden[:, None, -read:]

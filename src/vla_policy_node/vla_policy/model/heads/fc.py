"""A frame's feature in, a chunk of actions out: a head without history."""

from __future__ import annotations

from torch import Tensor

from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionHead, ActionShape
from vla_policy.model.heads.decoders import DecoderOptions


class FcHead(ActionHead):
    """A small perceptron for each frame by itself."""

    class Options(DecoderOptions):
        """Those of the perceptron."""

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__(config, hidden_size, shape)
        self.decoder = self.Options(**config.head_options).build(hidden_size, shape)

    def forward(self, features_BWD: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, W, D) -> arm (B, W, K, A) and gripper logits (B, W, K) or None; frames do not mix."""
        return self.decoder(features_BWD)

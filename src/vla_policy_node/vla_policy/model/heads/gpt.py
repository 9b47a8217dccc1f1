"""The features of a window in, a chunk of actions per frame out: a transformer that looks back over the
frames."""

from __future__ import annotations

from torch import Tensor

from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionHead, ActionShape
from vla_policy.model.heads.decoders import DecoderOptions
from vla_policy.model.heads.history import CausalHistory, HistoryOptions


class GptHead(ActionHead):
    """Causal self-attention over the window, then a small perceptron. RoboVLMs' has 8 layers and 8 heads."""

    history = "always"

    class Options(HistoryOptions, DecoderOptions):
        """Those of the transformer and of the perceptron."""

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__(config, hidden_size, shape)
        options = self.Options(**config.head_options)
        self.past = CausalHistory(hidden_size, options, config.history_length)
        self.decoder = options.build(options.width, shape)

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse a width that does not fall into whole heads."""
        cls.Options(**config.head_options).check()

    def forward(self, features_BWD: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, W, D) -> arm (B, W, K, A) and gripper logits (B, W, K) or None; W up to `history_length`."""
        return self.decoder(self.past(features_BWD))

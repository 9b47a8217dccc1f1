"""The features of a window in, a chunk of actions per frame out: an LSTM adds what the past says to each.

The recurrence starts from zero at the window's first frame. Its contribution starts at zero too, so that
training begins with a policy that acts on the newest frame and learns what the past adds.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionHead, ActionShape
from vla_policy.model.heads.decoders import DecoderOptions


class LstmHead(ActionHead):
    """LSTM beside a skip connection, then a small perceptron."""

    history = "always"

    class Options(DecoderOptions):
        """hidden_size, layers: of the LSTM. dropout: on what it adds. skip: whether the feature goes past the
        LSTM too; RoboVLMs has 4 layers of 1024, no skip and its own decoder.
        """

        hidden_size: Annotated[int, Field(ge=1)] = 128
        layers: Annotated[int, Field(ge=1)] = 1
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
        skip: bool = True

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__(config, hidden_size, shape)
        options = self.Options(**config.head_options)
        self.lstm = nn.LSTM(hidden_size, options.hidden_size, options.layers, batch_first=True)
        self.dropout = nn.Dropout(options.dropout)
        self.past = nn.Linear(options.hidden_size, hidden_size) if options.skip else None
        if self.past is not None:
            nn.init.zeros_(self.past.weight)
            nn.init.zeros_(self.past.bias)
        self.decoder = options.build(hidden_size if options.skip else options.hidden_size, shape)

    def forward(self, features_BWD: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, W, D) -> arm (B, W, K, A) and gripper logits (B, W, K) or None; the state is zero before frame 0."""
        past, _ = self.lstm(features_BWD.to(self.lstm.weight_ih_l0.dtype))
        past = self.dropout(past.to(features_BWD.dtype))
        return self.decoder(past if self.past is None else features_BWD + self.past(past))

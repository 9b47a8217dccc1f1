"""The newest frame's feature in, a chunk of actions out: a head without history."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionHead, ActionShape, ChunkDecoder
from vla_policy.strict import StrictModel


class FcHead(ActionHead):
    """A small perceptron for each frame by itself."""

    class Options(StrictModel):
        """decoder_size: width of the hidden layer."""

        decoder_size: Annotated[int, Field(ge=1)] = 256

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__(config, hidden_size, shape)
        self.decoder = ChunkDecoder(hidden_size, shape, self.Options(**config.head_options).decoder_size)

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """A window would go unused: refuse it."""
        if config.history_length != 1:
            raise ConfigError("action_head 'fc' reads one frame only: got history_length "
                              f"{config.history_length}, expected 1; set it to 1, or use action_head lstm")

    def forward(self, features_BWD: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.decoder(features_BWD)

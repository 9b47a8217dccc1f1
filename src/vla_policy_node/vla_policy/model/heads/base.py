"""Features of a window in, a chunk of actions per frame out: what every action head shares.

Shapes: B batch, W window, D width, K chunk, A arm dimensions. Heads look back only: the actions of frame w
depend on frames 0..w.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from vla_policy.model.config import ModelConfig
from vla_policy.strict import StrictModel


@dataclass(frozen=True, slots=True)
class ActionShape:
    """What a head predicts: `chunk_size` rows of `arm_size` columns, and whether there is a gripper."""

    arm_size: int
    chunk_size: int
    has_gripper: bool


class ActionHead(nn.Module, ABC):
    """Turns features into actions."""

    class Options(StrictModel):
        """Keys of `head_options`; a head without any inherits this."""

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__()

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse what this head cannot do. Raises: ConfigError with the reason and what works."""

    @abstractmethod
    def forward(self, features_BWD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised arm actions (B, W, K, A) and gripper logits (B, W, K), positive is open, or None."""


class ChunkDecoder(nn.Module):
    """A feature (..., D) -> arm (..., K, A) and gripper logits (..., K), by one hidden layer."""

    def __init__(self, hidden_size: int, shape: ActionShape, decoder_size: int) -> None:
        super().__init__()
        self.shape = shape
        columns = shape.arm_size + shape.has_gripper
        self.layers = nn.Sequential(nn.Linear(hidden_size, decoder_size), nn.GELU(),
                                    nn.Linear(decoder_size, shape.chunk_size * columns))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        rows = self.layers(features).unflatten(-1, (self.shape.chunk_size, -1)).float()
        arm = rows[..., : self.shape.arm_size]
        return arm, rows[..., -1] if self.shape.has_gripper else None

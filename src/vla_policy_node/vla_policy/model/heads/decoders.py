"""A feature in, arm actions and gripper logits out: the perceptrons that fc, lstm and gpt heads end in.

Shapes: D width, K chunk, A arm dimensions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from vla_policy.model.heads.base import ActionShape
from vla_policy.model.heads.robovlms import RoboVlmsDecoder
from vla_policy.strict import StrictModel


class DecoderOptions(StrictModel):
    """decoder: small, or the one of RoboVLMs' checkpoints. decoder_size: width of the small one's hidden
    layer.
    """

    decoder: Literal["small", "robovlms"] = "small"
    decoder_size: Annotated[int, Field(ge=1)] = 256

    def build(self, hidden_size: int, shape: ActionShape) -> nn.Module:
        """The decoder of features (..., hidden_size)."""
        if self.decoder == "robovlms":
            return RoboVlmsDecoder(hidden_size, shape)
        return ChunkDecoder(hidden_size, shape, self.decoder_size)


class ChunkDecoder(nn.Module):
    """A feature (..., D) -> arm (..., K, A) and gripper logits (..., K), by one hidden layer."""

    def __init__(self, hidden_size: int, shape: ActionShape, decoder_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(nn.Linear(hidden_size, decoder_size), nn.GELU(),
                                    nn.Linear(decoder_size, shape.chunk_size * shape.columns))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(..., D) -> arm (..., K, A) and gripper logits (..., K), or None without a gripper; both float32."""
        rows = self.layers(features).unflatten(-1, (self.shape.chunk_size, -1)).float()
        arm = rows[..., : self.shape.arm_size]
        return arm, rows[..., -1] if self.shape.has_gripper else None

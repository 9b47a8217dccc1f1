"""Hidden states of a window in, a chunk of actions per frame out: what every action head shares.

Shapes: B batch, W window, Q action queries, T action tokens, D width, K chunk, A arm dimensions. Heads
look back only: the actions of frame w depend on frames 0..w.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from torch import Tensor, nn

from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.inpainting import Inpainting
from vla_policy.model.heads.losses import ActionTargets, LossPart, LossWeights, gripper_loss, pose_loss
from vla_policy.strict import StrictModel


@dataclass(frozen=True, slots=True)
class ActionShape:
    """What a head predicts: `chunk_size` rows of `arm_size` columns, and whether there is a gripper."""

    arm_size: int
    chunk_size: int
    has_gripper: bool

    @property
    def columns(self) -> int:
        """Columns of a row, the gripper's among them."""
        return self.arm_size + self.has_gripper


@dataclass(frozen=True)
class Reading:
    """What the rest of the model offers a head.

    hidden: embedded action tokens (B, W, T, D), or None, in; hidden states of the action queries and of those
    tokens out, (B, W, Q + T, D). word_embedding: of the backbone.
    """

    hidden: Callable[[Tensor | None], Tensor]
    word_embedding: nn.Module

    @cached_property
    def queries(self) -> Tensor:
        """The hidden states of the action queries alone, (B, W, Q, D); read once, whoever asks."""
        return self.hidden(None)

    @cached_property
    def feature(self) -> Tensor:
        """The hidden state of each frame's first action query, (B, W, D)."""
        return self.queries[:, :, 0]


class ActionHead(nn.Module, ABC):
    """Turns hidden states into actions.

    action_space: the one it works in.
    history: whether it fuses the frames of a window; optional: where the formulation does not.
    inpaints: whether it can go on from rows of a chunk before.
    """

    action_space: ClassVar[Literal["continuous", "discrete"]] = "continuous"
    history: ClassVar[Literal["never", "always", "optional"]] = "never"
    inpaints: ClassVar[bool] = False

    class Options(StrictModel):
        """Keys of `head_options`; a head without any inherits this."""

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__()
        self.shape = shape

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse options that this head cannot work with. Raises: ConfigError with the reason and what works.
        """

    @classmethod
    def queries(cls, config: ModelConfig, shape: ActionShape) -> int:
        """Q, the action queries it wants of each frame."""
        return 1

    @classmethod
    def new_words(cls, config: ModelConfig) -> int:
        """Token ids it needs behind those of the text."""
        return 0

    @abstractmethod
    def forward(self, features_BWD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised arm actions (B, W, K, A) and gripper logits (B, W, K), positive is open, or None."""

    def decode(self, reading: Reading) -> tuple[Tensor, Tensor | None]:
        """`forward` on what the rest of the model says."""
        return self(reading.feature)

    def newest(self, reading: Reading) -> tuple[Tensor, Tensor | None]:
        """The part of `decode` that serving needs: arm (B, K, A) and gripper logits (B, K) of the newest frame."""
        arm_BWKA, gripper_BWK = self.decode(reading)
        return arm_BWKA[:, -1], None if gripper_BWK is None else gripper_BWK[:, -1]

    def inpaint(self, reading: Reading, inpainting: Inpainting) -> tuple[Tensor, Tensor | None]:
        """As `newest`, going on from the rows of a chunk before; of heads that do."""
        raise NotImplementedError(f"{type(self).__name__} does not inpaint")

    def loss(self, reading: Reading, targets: ActionTargets, weights: LossWeights) -> dict[str, LossPart]:
        """The parts of the loss, not weighed: `pose`, and `gripper` where there is one."""
        arm_BWKA, gripper_BWK = self.decode(reading)
        parts = {"pose": pose_loss(arm_BWKA, targets.arm_BWKA, targets.rows_BWK, weights.pose)}
        if gripper_BWK is not None:
            parts["gripper"] = gripper_loss(gripper_BWK, targets.gripper_BWK, targets.rows_BWK)
        return parts

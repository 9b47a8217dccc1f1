"""Predictions and targets in, masked losses out: the terms that heads are trained with.

Shapes: B batch, W window, K chunk, A arm columns. Frame t is trained on the actions a[t..t+K).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vla_policy.strict import StrictModel

PoseLoss = Literal["huber", "mse"]


@dataclass(frozen=True, slots=True)
class ActionTargets:
    """arm_BWKA: in [-1, 1]. gripper_BWK: in 0..1, or None. rows_BWK: True where a row counts, False in
    padding. place_BW3: where the thing that the sentence names is, or None; it counts in frames that have a row
    that counts.
    """

    arm_BWKA: Tensor
    gripper_BWK: Tensor | None
    rows_BWK: Tensor
    place_BW3: Tensor | None = None


class LossWeights(StrictModel):
    """How the parts of the loss are weighed.

    pose: huber (delta 1, as RoboVLMs' code) or mse (as its paper). pose_weight: of the arm's actions, as a pose
    or as bins. gripper_weight: of the gripper's entropy. grounding_weight: of pointing at the thing named.
    """

    pose: PoseLoss = "huber"
    pose_weight: Annotated[float, Field(gt=0)] = 1.0
    gripper_weight: Annotated[float, Field(ge=0)] = 0.01
    grounding_weight: Annotated[float, Field(ge=0)] = 0.0

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        """The weighed sum of the parts `pose` or `bins`, `gripper` and `place`."""
        weights = {"pose": self.pose_weight, "bins": self.pose_weight, "gripper": self.gripper_weight,
                   "place": self.grounding_weight}
        return sum(weights[name] * value for name, value in parts.items())


def without_padding(values: Tensor, rows_BWK: Tensor) -> Tensor:
    """`values` (B, W, K, ...), 0 where a row does not count: what is not finite there reaches no loss and no
    gradient.
    """
    while rows_BWK.dim() < values.dim():
        rows_BWK = rows_BWK.unsqueeze(-1)
    return values.masked_fill(~rows_BWK, 0.0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where the boolean `mask` (of the same leading shape) holds; 0 where it holds nowhere.
    """
    while mask.dim() < values.dim():
        mask = mask.unsqueeze(-1)
    mask = mask.expand_as(values)
    return (values * mask).sum() / mask.sum().clamp(min=1)


def pose_loss(prediction: Tensor, target: Tensor, rows_BWK: Tensor, kind: PoseLoss) -> Tensor:
    """Huber or squared error over the rows that count."""
    loss = F.smooth_l1_loss if kind == "huber" else F.mse_loss
    errors = loss(prediction.float(), without_padding(target, rows_BWK), reduction="none")
    return masked_mean(errors, rows_BWK)


def gripper_loss(logits_BWK: Tensor, target_BWK: Tensor, rows_BWK: Tensor) -> Tensor:
    """Binary cross entropy over the rows that count; positive logits are open."""
    target_BWK = without_padding(target_BWK, rows_BWK)
    entropy = F.binary_cross_entropy_with_logits(logits_BWK.float(), target_BWK, reduction="none")
    return masked_mean(entropy, rows_BWK)


def place_loss(prediction: Tensor, target: Tensor, frames: Tensor) -> Tensor:
    """How far off the named thing's position (..., 3) is guessed: Huber, delta 1, over the `frames` (...) that
    count.
    """
    errors = F.smooth_l1_loss(prediction.float(), without_padding(target, frames), reduction="none")
    return masked_mean(errors, frames)

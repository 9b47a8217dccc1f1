"""Predictions and targets in, masked losses out: the terms that heads are trained with.

Shapes: B batch, W window, K chunk, A arm columns. Frame t is trained on the actions a[t..t+K).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vla_policy.strict import StrictModel

PoseLoss = Literal["huber", "mse"]


@dataclass(frozen=True, slots=True)
class LossPart:
    """One term of the loss in a batch: its sum over what counts, and how many count (rows or frames), both scalars.

    Kept apart, because the mean over a batch that is cut into ragged pieces is not the mean of the pieces' means.
    """

    sum: Tensor
    count: Tensor

    @property
    def mean(self) -> Tensor:
        """Of what counts; 0 where nothing does."""
        return self.sum / self.count.clamp(min=1)


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

    @property
    def counts(self) -> dict[str, Tensor]:
        """The `count` that each part of the loss will have, known before the model runs."""
        rows, frames = self.rows_BWK.sum(), self.rows_BWK.any(-1).sum()
        return {"pose": rows, "bins": rows, "gripper": rows, "place": frames}


class LossWeights(StrictModel):
    """How the parts of the loss are weighed.

    pose: huber (delta 1, as RoboVLMs' code) or mse (as its paper). pose_weight: of the arm's actions, as a pose
    or as bins. gripper_weight: of the gripper's entropy. grounding_weight: of pointing at the thing named.
    """

    pose: PoseLoss = "huber"
    pose_weight: Annotated[float, Field(gt=0)] = 1.0
    gripper_weight: Annotated[float, Field(ge=0)] = 0.01
    grounding_weight: Annotated[float, Field(ge=0)] = 0.0

    def total(self, parts: Mapping[str, LossPart]) -> Tensor:
        """The weighed sum of the means of the parts `pose` or `bins`, `gripper`, `place` and `scene`."""
        weights = {"pose": self.pose_weight, "bins": self.pose_weight, "gripper": self.gripper_weight,
                   "place": self.grounding_weight, "scene": self.grounding_weight}
        return sum(weights[name] * part.mean for name, part in parts.items())


def without_padding(values: Tensor, rows_BWK: Tensor) -> Tensor:
    """`values` (B, W, K, ...), 0 where a row does not count: what is not finite there reaches no loss and no
    gradient.
    """
    while rows_BWK.dim() < values.dim():
        rows_BWK = rows_BWK.unsqueeze(-1)
    return values.masked_fill(~rows_BWK, 0.0)


def part_of(values: Tensor, mask: Tensor) -> LossPart:
    """Sum `values` where the boolean `mask` holds; dimensions that the mask lacks, at the end, are averaged."""
    values = values.flatten(mask.dim()).mean(-1) if values.dim() > mask.dim() else values
    return LossPart((values * mask).sum(), mask.sum())


def pose_loss(prediction: Tensor, target: Tensor, rows_BWK: Tensor, kind: PoseLoss) -> LossPart:
    """Huber or squared error over the rows that count."""
    loss = F.smooth_l1_loss if kind == "huber" else F.mse_loss
    errors = loss(prediction.float(), without_padding(target, rows_BWK), reduction="none")
    return part_of(errors, rows_BWK)


def gripper_loss(logits_BWK: Tensor, target_BWK: Tensor, rows_BWK: Tensor) -> LossPart:
    """Binary cross entropy over the rows that count; positive logits are open."""
    target_BWK = without_padding(target_BWK, rows_BWK)
    entropy = F.binary_cross_entropy_with_logits(logits_BWK.float(), target_BWK, reduction="none")
    return part_of(entropy, rows_BWK)


def place_loss(prediction: Tensor, target: Tensor, frames: Tensor) -> LossPart:
    """How far off the named thing's position (..., 3) is guessed: Huber, delta 1, over the `frames` (...) that
    count.
    """
    errors = F.smooth_l1_loss(prediction.float(), without_padding(target, frames), reduction="none")
    return part_of(errors, frames)

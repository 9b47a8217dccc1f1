"""Model output and targets in, masked losses out.

Shapes: B batch, W window frames, K chunk rows, A arm columns. Frame t is trained on the actions a[t..t+K).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from vla_policy.model.vla import ModelOutput
from vla_training.config import Losses


@dataclass(frozen=True, slots=True)
class Targets:
    """arm_BWKA in [-1, 1], gripper_BWK in 0..1 or None, rows_BWK: which rows count, place_BW3 or None,
    frames_BW.
    """

    arm_BWKA: Tensor
    gripper_BWK: Tensor | None
    rows_BWK: Tensor
    place_BW3: Tensor | None
    frames_BW: Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where the boolean `mask` (of the same leading shape) holds; 0 where it holds
    nowhere.
    """
    while mask.dim() < values.dim():
        mask = mask.unsqueeze(-1)
    mask = mask.expand_as(values)
    return (values * mask).sum() / mask.sum().clamp(min=1)


def pose_loss(prediction: Tensor, target: Tensor, rows: Tensor, kind: str) -> Tensor:
    """Huber (delta 1, as RoboVLMs' code) or squared error over the rows that count."""
    if kind == "huber":
        return masked_mean(F.smooth_l1_loss(prediction, target, reduction="none"), rows)
    return masked_mean(F.mse_loss(prediction, target, reduction="none"), rows)


def place_loss(prediction: Tensor, target: Tensor, frames: Tensor) -> Tensor:
    """How far off the named thing's position is guessed (Huber, delta 1, in the units of `PlaceScale`)."""
    return masked_mean(F.smooth_l1_loss(prediction, target, reduction="none"), frames)


def total_loss(output: ModelOutput, targets: Targets, weights: Losses) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighed sum and its parts (pose, gripper, place), all scalars."""
    parts = {"pose": pose_loss(output.arm_BWKA.float(), targets.arm_BWKA, targets.rows_BWK, weights.pose)}
    total = weights.pose_weight * parts["pose"]
    if targets.gripper_BWK is not None:
        entropy = F.binary_cross_entropy_with_logits(
            output.gripper_BWK.float(), targets.gripper_BWK, reduction="none"
        )
        parts["gripper"] = masked_mean(entropy, targets.rows_BWK)
        total = total + weights.gripper_weight * parts["gripper"]
    if targets.place_BW3 is not None and weights.grounding_weight:
        parts["place"] = place_loss(output.grounding_BW3.float(), targets.place_BW3, targets.frames_BW)
        total = total + weights.grounding_weight * parts["place"]
    return total, parts

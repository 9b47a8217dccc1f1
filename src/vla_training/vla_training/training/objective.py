"""A batch of windows and one of scenes in, the sums of every part of the loss out: the one forward pass of a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_policy.model.heads.losses import ActionTargets, LossPart, LossWeights, place_loss
from vla_policy.model.vla import VLAModel
from vla_training.datasets.batch import Batch


@dataclass(frozen=True, slots=True)
class Pointing:
    """Single frames and where the thing that each sentence names is.

    images_BVSS3: uint8. state_BP: normalised. text_ids_BL, text_mask_BL: as in Batch. place_B3: units of PlaceScale.
    """

    images_BVSS3: Tensor
    state_BP: Tensor
    text_ids_BL: Tensor
    text_mask_BL: Tensor
    place_B3: Tensor

    def to(self, device: torch.device) -> Pointing:
        """The batch on a device."""
        return Pointing(*(getattr(self, name).to(device) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one process runs forward and back at once."""

    windows: Batch
    scenes: Pointing | None = None

    def to(self, device: torch.device) -> MicroBatch:
        """The batch on a device; from page-locked memory without waiting for it."""
        return MicroBatch(self.windows.to(device, non_blocking=True), self.scenes and self.scenes.to(device))

    @property
    def counts(self) -> dict[str, Tensor]:
        """What each part of the loss will be a sum over."""
        known = targets(self.windows).counts
        return known if self.scenes is None else known | {"scene": torch.tensor(len(self.scenes.place_B3))}


class Objective(nn.Module):
    """Windows and scenes in one forward pass, so that what wraps this module (DDP, FSDP) sees every gradient once."""

    def __init__(self, model: VLAModel, weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(self, batch: MicroBatch) -> dict[str, Tensor]:
        """Sums, float32, by part; `batch.counts` has what they are over."""
        windows, scenes = batch.windows, batch.scenes
        parts = self.model.loss(windows.images_BWVSS3, windows.state_BWP, windows.text_ids_BL, windows.text_mask_BL,
                                targets(windows), self.weights)
        if scenes is not None:
            guess_B3 = self.model.ground(scenes.images_BVSS3, scenes.state_BP, scenes.text_ids_BL, scenes.text_mask_BL)
            everywhere = torch.ones(len(guess_B3), dtype=torch.bool, device=guess_B3.device)
            parts["scene"] = place_loss(guess_B3, scenes.place_B3, everywhere)
        return {name: part.sum for name, part in parts.items()}

    def total(self, sums: dict[str, Tensor], counts: dict[str, Tensor]) -> Tensor:
        """The weighed sum of the parts, each over the count of the whole batch."""
        return self.weights.total({name: LossPart(value, counts[name]) for name, value in sums.items()})


def targets(windows: Batch) -> ActionTargets:
    """What the heads are trained on."""
    return ActionTargets(windows.arm_BWKA, windows.gripper_BWK, windows.rows_BWK, windows.place_BW3)

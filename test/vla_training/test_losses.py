"""Masked losses: padding counts for nothing, the weights are those of the config."""

import pytest
import torch

from vla_policy.model.vla import ModelOutput
from vla_training.config import Losses
from vla_training.losses import Targets, masked_mean, total_loss


def output_and_targets() -> tuple[ModelOutput, Targets]:
    generator = torch.Generator().manual_seed(0)
    arm, gripper, place = (
        torch.randn(shape, generator=generator) for shape in ((2, 3, 4, 6), (2, 3, 4), (2, 3, 3))
    )
    rows = torch.ones(2, 3, 4, dtype=torch.bool)
    rows[1, 2], rows[0, 2, 2:] = False, False
    frames = torch.tensor([[True, True, True], [True, True, False]])
    targets = Targets(torch.zeros_like(arm), torch.ones_like(gripper), rows, torch.zeros_like(place), frames)
    return ModelOutput(arm, gripper, place), targets


def test_masked_mean_counts_only_what_the_mask_keeps() -> None:
    values = torch.tensor([[1.0, 3.0], [100.0, 100.0]])
    assert masked_mean(values, torch.tensor([True, False])).item() == 2.0
    assert masked_mean(values, torch.tensor([False, False])).item() == 0.0


def test_padding_changes_no_loss_and_gets_no_gradient() -> None:
    output, targets = output_and_targets()
    before, _ = total_loss(output, targets, Losses(grounding_weight=1.0))
    output.arm_BWKA[1, 2], output.gripper_BWK[0, 2, 2:], output.grounding_BW3[1, 2] = 1e3, -1e3, 1e3
    output.arm_BWKA.requires_grad_()
    after, _ = total_loss(output, targets, Losses(grounding_weight=1.0))
    after.backward()
    assert torch.equal(before, after.detach())
    assert not output.arm_BWKA.grad[1, 2].any()
    assert output.arm_BWKA.grad[0, 0].any()


def test_the_total_is_the_weighed_sum_of_its_parts() -> None:
    output, targets = output_and_targets()
    weights = Losses(pose_weight=2.0, gripper_weight=0.3, grounding_weight=0.7)
    total, parts = total_loss(output, targets, weights)
    assert total.item() == pytest.approx(
        (2 * parts["pose"] + 0.3 * parts["gripper"] + 0.7 * parts["place"]).item()
    )


def test_mse_and_huber_differ_beyond_one() -> None:
    output, targets = output_and_targets()
    output.arm_BWKA.fill_(3.0)
    assert total_loss(output, targets, Losses(pose="mse", gripper_weight=0.0))[0].item() == pytest.approx(9.0)
    assert total_loss(output, targets, Losses(pose="huber", gripper_weight=0.0))[0].item() == pytest.approx(
        2.5
    )

"""Images and observations in; out: images at the model's size, and the proprioception vector with names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from policies import observation, tabletop

from vla_policy.errors import ContractError, ObservationError
from vla_policy.observation.proprioception import proprioception, proprioception_names, rotation_6d
from vla_policy.observation.resize import resize_image
from vla_policy.types import Pose

IMAGE = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)


def test_half_size_is_the_exact_rounded_mean() -> None:
    expected = (IMAGE.reshape(112, 2, 112, 2, 3).astype(int).sum((1, 3)) + 2) // 4
    assert np.array_equal(resize_image(IMAGE, 112), expected)


@pytest.mark.parametrize("size", [56, 100, 32])
def test_smaller_sizes_stay_near_the_area_mean(size: int) -> None:
    smooth = np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None, None], (224, 224, 3))
    rows = resize_image(np.ascontiguousarray(smooth), size)[:, 0, 0]
    centres = (np.arange(size) + 0.5) * 224 / size - 0.5
    np.testing.assert_allclose(rows, centres, atol=1.0)


def test_same_size_passes_and_a_small_image_grows() -> None:
    assert np.array_equal(resize_image(IMAGE, 224), IMAGE)
    assert resize_image(IMAGE[:84, :84], 112).shape == (112, 112, 3)
    assert resize_image(IMAGE[:, :160], 112).shape == (112, 112, 3)


@pytest.mark.parametrize("image", [IMAGE.astype(np.float32), IMAGE[..., 0], IMAGE[..., :2]])
def test_wrong_kinds_of_image_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        resize_image(image, 112)


def test_rotation_is_the_first_two_columns_of_the_matrix() -> None:
    quarter_turn_about_z = np.array([0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4)])
    turned = rotation_6d(Pose(np.zeros(3), quarter_turn_about_z))
    np.testing.assert_allclose(turned, [0, 1, 0, -1, 0, 0], atol=1e-12)
    quarter_turn_about_x = np.array([np.sin(np.pi / 4), 0, 0, np.cos(np.pi / 4)])
    turned = rotation_6d(Pose(np.zeros(3), quarter_turn_about_x))
    np.testing.assert_allclose(turned, [1, 0, 0, 0, 0, 1], atol=1e-12)


def test_proprioception_is_position_rotation_and_named_joints() -> None:
    seen, contract = observation(3), tabletop()
    vector = proprioception(contract, seen, ("finger_joint", "joint2"))
    expected = np.concatenate([seen.pose.position, rotation_6d(seen.pose), seen.joints[[7, 1]]])
    np.testing.assert_array_equal(vector, expected.astype(np.float32))
    assert proprioception_names(contract, ("finger_joint", "joint2"))[-2:] == ("finger_joint", "joint2")
    assert len(proprioception_names(contract, ("finger_joint", "joint2"))) == len(vector)


def test_missing_pose_bad_numbers_and_unknown_joints_are_refused() -> None:
    contract, seen = tabletop(), observation(0)
    with pytest.raises(ObservationError, match="/tcp_pose"):
        proprioception(contract, dataclasses.replace(seen, pose=None), ())
    joints = seen.joints.copy()
    joints[7] = np.nan
    with pytest.raises(ObservationError, match="finger_joint not finite"):
        proprioception(contract, dataclasses.replace(seen, joints=joints), ("finger_joint",))
    with pytest.raises(ContractError, match="did you mean 'finger_joint'"):
        proprioception_names(contract, ("finger_jiont",))
    with pytest.raises(ContractError, match="no pose"):
        proprioception_names(contract.model_copy(update={"pose": None}), ())

"""Rotation vectors to quaternions and back; the matrix of a rotation says that they mean the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vla_policy.action.rotation import (
    mean_rotvec,
    multiply,
    quaternion_from_rotvec,
    rotate,
    rotation_between,
    rotvec_from_quaternion,
)

part = st.floats(-1.7, 1.7)
rotvecs = st.tuples(part, part, part).map(np.array).filter(lambda vector: np.linalg.norm(vector) < 3.1)


def matrix(quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    turned = matrix(quaternion_from_rotvec(np.array([0.0, 0.0, np.pi / 2]))) @ [1.0, 0.0, 0.0]
    np.testing.assert_allclose(turned, [0.0, 1.0, 0.0], atol=1e-15)


@given(rotvecs)
def test_there_and_back(rotvec: np.ndarray) -> None:
    np.testing.assert_allclose(rotvec_from_quaternion(quaternion_from_rotvec(rotvec)), rotvec, atol=1e-9)


@given(rotvecs, rotvecs)
def test_a_product_turns_by_the_right_one_first(first: np.ndarray, second: np.ndarray) -> None:
    left, right = quaternion_from_rotvec(second), quaternion_from_rotvec(first)
    np.testing.assert_allclose(matrix(multiply(left, right)), matrix(left) @ matrix(right), atol=1e-9)


@given(rotvecs, rotvecs)
def test_rotating_by_what_lies_between_arrives(start: np.ndarray, end: np.ndarray) -> None:
    begin, goal = quaternion_from_rotvec(start), quaternion_from_rotvec(end)
    np.testing.assert_allclose(matrix(rotate(begin, rotation_between(begin, goal))), matrix(goal), atol=1e-9)


def test_the_mean_near_half_a_turn_does_not_cancel_out() -> None:
    near_pi = np.array([[0.0, 0.0, 3.1], [0.0, 0.0, -3.1]])  # 0.08 rad apart, though the plain mean is zero
    assert abs(np.linalg.norm(mean_rotvec(near_pi, np.array([0.5, 0.5]))) - np.pi) < 1e-9

"""Commands of the contract as CALVIN's own actions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sim_bridges.calvin import actions
from sim_bridges.calvin.actions import euler_step, quaternion_from_euler, relative_action
from vla_policy.action.rotation import rotate

PERIOD_S = 1 / 30
ANGLES = arrays(np.float64, 3, elements=st.floats(-1.3, 1.3))
TURNS = arrays(np.float64, 3, elements=st.floats(-0.1, 0.1))


def robot(*angles: float) -> SimpleNamespace:
    return SimpleNamespace(target_orn=np.array(angles), max_rel_pos=0.02, max_rel_orn=0.05,
                           magic_scaling_factor_pos=1, magic_scaling_factor_orn=1)


def test_a_step_is_counted_in_units_of_20_mm() -> None:
    action = relative_action(np.array([0.6, -0.3, 0.0, 0.0, 0.0, 0.0]), 1.0, PERIOD_S, robot(3.09, -0.03, 1.5))
    assert action == pytest.approx([1.0, -0.5, 0.0, 0.0, 0.0, 0.0, 1.0])
    assert not action[3:6].any()  # no turn is exactly no turn


def test_a_turn_about_the_upright_axis_is_one_of_the_third_angle() -> None:
    action = relative_action(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.5]), 0.0, PERIOD_S, robot(np.pi, 0.0, 0.4))
    assert action == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -1.0])


def test_a_turn_about_another_axis_is_not_the_angle_of_its_name() -> None:
    """With the tool turned by a quarter, a turn about the world's y axis is one of the first angle."""
    step = euler_step(np.array([0.0, 0.0, np.pi / 2]), np.array([0.0, 0.05, 0.0]))
    assert step == pytest.approx([0.05, 0.0, 0.0])


@given(ANGLES, TURNS)
def test_the_angles_reach_the_orientation_that_the_turn_leads_to(angles: np.ndarray, turn: np.ndarray) -> None:
    reached = quaternion_from_euler(angles + euler_step(angles, turn))
    assert abs(reached @ rotate(quaternion_from_euler(angles), turn)) == pytest.approx(1.0)


def test_targets_beyond_half_a_turn_go_on_without_a_leap() -> None:
    step = euler_step(np.array([3.14 + 0.02, 0.0, 0.0]), np.array([0.03, 0.0, 0.0]))
    assert step == pytest.approx([0.03, 0.0, 0.0])


def test_the_gripper_is_open_from_one_half() -> None:
    assert [actions.gripper_action(opening) for opening in (0.0, 0.49, 0.5, 1.0)] == [-1, -1, 1, 1]


def test_an_absolute_action_is_the_pose_itself() -> None:
    pose = np.array([0.1, 0.2, 0.3, 1.0, 0.0, 0.0, 0.0])
    position, quaternion, gripper = actions.absolute_action(pose, 0.0)
    assert position.tolist() == [0.1, 0.2, 0.3] and quaternion.tolist() == [1.0, 0.0, 0.0, 0.0] and gripper == -1

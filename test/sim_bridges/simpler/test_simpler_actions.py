"""Openings as the grippers' own numbers: the published binary and sticky rules."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim_bridges.simpler.actions import BinaryGripper, StickyGripper, arm_action, gripper_of
from sim_bridges.simpler.robots import GOOGLE, WIDOWX

STEPS = 15
OPENINGS = st.lists(st.sampled_from([0.0, 0.2, 0.45, 0.5, 0.55, 0.9, 1.0]), min_size=1, max_size=60)


def by_the_rule(openings: list[float]) -> list[float]:
    """The rule as it is told: a change above a half is repeated until it was done 15 times."""
    actions, step = [], 0
    while step < len(openings):
        change = 0.0 if step == 0 else openings[step - 1] - openings[step]
        times = STEPS if abs(change) > 0.5 else 1
        actions += [change] * times
        step += times
    return actions[:len(openings)]


@given(OPENINGS)
def test_a_large_change_sticks_for_fifteen_steps(openings: list[float]) -> None:
    gripper = StickyGripper(STEPS)
    assert [gripper.action(opening) for opening in openings] == by_the_rule(openings)


def test_closing_is_above_zero_and_a_new_instruction_forgets() -> None:
    gripper = StickyGripper(STEPS)
    assert [gripper.action(opening) for opening in (1.0, 0.0, 1.0)] == [0.0, 1.0, 1.0]
    gripper.begin()
    assert [gripper.action(opening) for opening in (1.0, 1.0, None, 0.8)] == [0.0, 0.0, 0.0, 1.0 - 0.8]


def test_widowx_is_open_above_one_half() -> None:
    gripper = BinaryGripper()
    openings = (None, 0.0, None, 0.5, 0.51, 1.0)
    assert [gripper.action(opening) for opening in openings] == [1.0, -1.0, -1.0, -1.0, 1.0, 1.0]


def test_each_robot_has_its_gripper() -> None:
    assert isinstance(gripper_of(GOOGLE), StickyGripper) and isinstance(gripper_of(WIDOWX), BinaryGripper)


def test_a_twist_is_the_step_of_its_period() -> None:
    twist = np.array([0.1, 0.0, -0.05, 0.0, 0.0, 1.0])
    assert np.allclose(arm_action(twist, 0.2), [0.02, 0.0, -0.01, 0.0, 0.0, 0.2])

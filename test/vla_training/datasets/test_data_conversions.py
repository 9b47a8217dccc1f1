"""Motions, grippers and rates: every conversion comes back, and joined or split rows move as far as before."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vla_policy.action.rotation import inverse
from vla_policy.action.rotation_forms import matrix_from, quaternion_from
from vla_training.datasets import conversions

numbers = st.floats(-2.0, 2.0)
vectors = st.lists(numbers, min_size=3, max_size=3).map(np.array)
motions = st.tuples(vectors, vectors.map(lambda rotvec: quaternion_from("rotation_vector", rotvec)))
small = st.floats(-0.5, 0.5)
changes = st.tuples(
    st.lists(small, min_size=3, max_size=3).map(np.array),
    st.lists(small, min_size=3, max_size=3).map(lambda v: quaternion_from("rotation_vector", np.array(v))),
)


def same_motion(left: conversions.Motion, right: conversions.Motion) -> bool:
    return np.allclose(left[0], right[0]) and np.allclose(matrix_from(left[1]), matrix_from(right[1]))


def chain(parts: list[conversions.Motion]) -> conversions.Motion:
    total = parts[0]
    for part in parts[1:]:
        total = conversions.moved(total, part)
    return total


@given(motions, motions)
def test_a_change_leads_back_to_the_target(start: conversions.Motion, end: conversions.Motion) -> None:
    assert same_motion(conversions.moved(start, conversions.change_between(start, end)), end)


@given(motions, motions)
def test_a_change_in_the_tools_axes_comes_back(change: conversions.Motion, tool: conversions.Motion) -> None:
    base = conversions.tool_to_base(change, tool[1])
    assert same_motion(conversions.tool_to_base(base, inverse(tool[1])), change)


def test_a_tool_that_looks_down_moves_down_along_its_own_z() -> None:
    down = quaternion_from("euler_xyz", np.array([np.pi, 0.0, 0.0]))
    forward = np.array([0.0, 0.0, 0.1]), quaternion_from("rotation_vector", np.array([0.0, 0.0, 0.2]))
    position, turn = conversions.tool_to_base(forward, down)
    assert np.allclose(position, [0.0, 0.0, -0.1])
    assert np.allclose(matrix_from(turn), matrix_from(quaternion_from("rotation_vector", np.array([0.0, 0.0, -0.2]))))


@given(st.lists(numbers, min_size=1, max_size=5), st.floats(-1, 1), st.floats(0.1, 2.0))
def test_a_gripper_value_comes_back(values: list[float], closed_at: float, span: float) -> None:
    fraction = conversions.gripper_fraction(np.array(values), closed_at, closed_at + span)
    assert np.allclose(closed_at + fraction * span, values)


def test_changes_of_a_gripper_hold_until_the_next() -> None:
    asked = conversions.gripper_from_changes(np.array([0.0, 0.0, 1.0, 0.0, -1.0, 0.0]), closed_at=1.0, open_at=-1.0)
    assert asked.tolist() == [1, 1, 0, 0, 1, 1]
    assert conversions.gripper_from_changes(np.zeros(3), 1.0, -1.0).tolist() == [1, 1, 1]


@given(st.lists(changes, min_size=1, max_size=4), st.integers(1, 5))
def test_the_parts_of_a_change_are_the_change(rows: list[conversions.Motion], parts: int) -> None:
    position, quaternion = (np.stack(side) for side in zip(*rows, strict=True))
    split = conversions.split_changes(position, quaternion, parts)
    assert len(split[0]) == parts * len(rows)
    for number, row in enumerate(rows):
        own = slice(number * parts, (number + 1) * parts)
        assert same_motion(chain(list(zip(split[0][own], split[1][own], strict=True))), row)
    back = conversions.join_changes(*split, parts)
    assert same_motion((back[0][::parts], back[1][::parts]), (position, quaternion))


@given(st.lists(changes, min_size=3, max_size=6))
def test_joined_changes_move_as_far_as_one_after_the_other(rows: list[conversions.Motion]) -> None:
    position, quaternion = (np.stack(side) for side in zip(*rows, strict=True))
    joined = conversions.join_changes(position, quaternion, 3)
    assert len(joined[0]) == len(rows) - 2
    for start in range(len(rows) - 2):
        assert same_motion((joined[0][start], joined[1][start]), chain(rows[start : start + 3]))

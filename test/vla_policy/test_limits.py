"""Requests beyond a limit in, the nearest command within it out; whatever is asked for, no limit is ever passed."""

from __future__ import annotations

import numpy as np
import pytest
from guarding import CENTRE, UPRIGHT, joint_contract, pose_contract, state, twist_contract
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_policy.action.limits import GripperLimiter, JointLimiter, PoseLimiter, TwistLimiter, arm_limiter, outside
from vla_policy.action.rotation import quaternion_from_rotvec, rotation_between

PERIOD_S = 0.05
TWIST, POSE, JOINTS = twist_contract(), pose_contract(), joint_contract()


def twist(x: float = 0.0, y: float = 0.0, z: float = 0.0, wz: float = 0.0) -> np.ndarray:
    return np.array([x, y, z, 0.0, 0.0, wz])


def pose(position: object = CENTRE, rotvec: object = (0.0, 0.0, 0.0)) -> np.ndarray:
    return np.concatenate([np.array(position), quaternion_from_rotvec(np.array(rotvec, dtype=np.float64))])


# ---- twists -----------------------------------------------------------------------------------------------------


def cruising(limiter: TwistLimiter, request: np.ndarray, steps: int = 8) -> np.ndarray:
    """What the limiter sends after it had time to get up to speed."""
    for _ in range(steps):
        sent = limiter.limit(request, state(0), PERIOD_S, 0.0)
    return sent


def test_a_row_becomes_a_velocity() -> None:
    row = np.array([0.01, 0.0, -0.02, 0.0, 0.0, 0.05])
    np.testing.assert_allclose(arm_limiter(TWIST).request(row), [0.2, 0.0, -0.4, 0.0, 0.0, 1.0])


def test_what_is_within_the_limits_passes_unchanged() -> None:
    request = np.array([0.1, -0.05, 0.02, 0.1, 0.2, -0.1])
    assert np.array_equal(TwistLimiter(TWIST).limit(request, state(0), PERIOD_S, 0.0), request)


def test_speed_is_reduced_and_its_direction_kept() -> None:
    np.testing.assert_allclose(cruising(TwistLimiter(TWIST), twist(0.6, 0.8)), twist(0.24, 0.32), atol=1e-12)
    np.testing.assert_allclose(cruising(TwistLimiter(TWIST), twist(wz=-3.0)), twist(wz=-1.0), atol=1e-12)


def test_acceleration_is_relative_to_what_was_sent_last() -> None:
    limiter = TwistLimiter(TWIST)
    sent = [limiter.limit(twist(0.4), state(0), PERIOD_S, 0.0)[0] for _ in range(3)]
    np.testing.assert_allclose(sent, [0.2, 0.4, 0.4])
    assert limiter.limit(twist(-0.4), state(0), PERIOD_S, 0.0)[0] == pytest.approx(0.2)
    assert limiter.limit(twist(-0.4), state(0), PERIOD_S / 2, 0.0)[0] == pytest.approx(0.1)
    assert limiter.limit(twist(-0.4), state(0), 0.0, 0.0)[0] == pytest.approx(0.1)


def test_a_new_run_starts_from_rest() -> None:
    limiter = TwistLimiter(TWIST)
    cruising(limiter, twist(0.4))
    limiter.begin()
    assert limiter.limit(twist(-0.4), state(0), PERIOD_S, 0.0)[0] == pytest.approx(-0.2)


def test_the_axis_that_would_leave_the_workspace_is_clipped_and_the_others_are_not() -> None:
    limiter = TwistLimiter(TWIST)
    cruising(limiter, twist(0.2, 0.2))
    sent = limiter.limit(twist(0.2, 0.2), state(0, position=(0.795, 0.0, 0.3)), PERIOD_S, 0.0)
    assert sent[0] == pytest.approx(0.005 / PERIOD_S)
    assert sent[1] == pytest.approx(0.2)


def test_an_old_state_leaves_less_room() -> None:
    fresh, aged = TwistLimiter(TWIST), TwistLimiter(TWIST)
    position = (0.795, 0.0, 0.3)
    assert (aged.limit(twist(0.2), state(0, position=position), PERIOD_S, 0.05)[0]
            == pytest.approx(fresh.limit(twist(0.2), state(0, position=position), PERIOD_S, 0.0)[0] / 2))


@pytest.mark.parametrize("beyond", [0.80, 0.83])
def test_outside_only_the_way_back_is_open(beyond: float) -> None:
    limiter = TwistLimiter(TWIST)
    there = state(0, position=(beyond, 0.0, 0.3))
    assert limiter.limit(twist(0.2), there, PERIOD_S, 0.0)[0] == 0.0
    assert limiter.limit(twist(-0.2), there, PERIOD_S, 0.0)[0] == pytest.approx(-0.2)


def test_jumps_are_named_with_both_numbers() -> None:
    limiter = TwistLimiter(TWIST)
    assert limiter.jump(twist(1.6), state(0)) is None
    assert limiter.jump(twist(1.7), state(0)) == "linear velocity: got 1.7 m/s, expected at most 1.6 m/s"
    assert limiter.jump(twist(wz=4.1), state(0)) == "angular velocity: got 4.1 rad/s, expected at most 4 rad/s"


component = st.floats(-3.0, 3.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[component] * 6).map(np.array), min_size=1, max_size=40))
def test_a_robot_that_obeys_stays_inside_and_within_every_limit(requests: list[np.ndarray]) -> None:
    limiter, position, before = TwistLimiter(TWIST), np.array(CENTRE), np.zeros(6)
    for request in requests:
        sent = limiter.limit(request, state(0, position=position), PERIOD_S, 0.0)
        assert np.linalg.norm(sent[:3]) <= 0.4 + 1e-9
        assert np.linalg.norm(sent[3:]) <= 1.0 + 1e-9
        assert np.linalg.norm(sent[3:] - before[3:]) <= 10.0 * PERIOD_S + 1e-9
        position, before = position + sent[:3] * PERIOD_S, sent
        assert outside(TWIST, state(0, position=position)) is None
        assert np.all(position >= np.array([0.2, -0.4, 0.0]) - 1e-9)
        assert np.all(position <= np.array([0.8, 0.4, 0.6]) + 1e-9)


# ---- poses ------------------------------------------------------------------------------------------------------


def follow(limiter: PoseLimiter | JointLimiter, request: np.ndarray, steps: int) -> list[np.ndarray]:
    return [limiter.limit(request, state(0), PERIOD_S, 0.0) for _ in range(steps)]


def test_a_pose_is_approached_from_where_the_robot_is_without_overshoot() -> None:
    path = np.array(follow(PoseLimiter(POSE), pose((0.6, 0.0, 0.3)), 30))
    steps = np.diff(np.concatenate([[CENTRE[0]], path[:, 0]]))
    assert path[-1, 0] == pytest.approx(0.6, abs=1e-6)
    assert path[:, 0].max() <= 0.6 + 1e-12
    assert steps.max() <= 0.4 * PERIOD_S + 1e-12
    assert np.abs(np.diff(np.concatenate([[0.0], steps]))).max() <= 4.0 * PERIOD_S**2 + 1e-12


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 0.9), st.sampled_from([0.004, 0.02, 0.05])), min_size=1, max_size=60))
def test_whatever_poses_come_and_when_none_leads_outside(steps: list[tuple[float, float]]) -> None:
    limiter = PoseLimiter(POSE)
    for x, elapsed_s in steps:
        sent = limiter.limit(pose((x, 0.0, 0.3)), state(0), elapsed_s, 0.0)
        assert 0.2 - 1e-12 <= sent[0] <= 0.8 + 1e-12


@settings(max_examples=30, deadline=None)
@given(st.floats(0.51, 0.75))
def test_no_target_is_overshot(x: float) -> None:
    path = np.array(follow(PoseLimiter(POSE), pose((x, 0.0, 0.3)), 30))
    assert path[:, 0].max() <= x + 1e-9


def test_a_quaternion_of_the_other_sign_is_the_same_turn() -> None:
    sent = PoseLimiter(POSE).limit(pose(), state(0, quaternion=(0.0, 0.0, 0.0, -1.0)), PERIOD_S, 0.0)
    np.testing.assert_allclose(sent, pose(), atol=1e-12)


def test_a_turn_is_approached_within_its_limits() -> None:
    path = follow(PoseLimiter(POSE), pose(rotvec=(0.0, 0.0, 0.5)), 40)
    turned = [np.linalg.norm(rotation_between(np.array(UPRIGHT), sent[3:])) for sent in path]
    assert turned[-1] == pytest.approx(0.5, abs=1e-6)
    assert max(np.diff([0.0, *turned])) <= 1.0 * PERIOD_S + 1e-9
    assert all(abs(np.linalg.norm(sent[3:]) - 1) < 1e-12 for sent in path)


def test_a_pose_outside_the_workspace_ends_at_its_wall() -> None:
    path = np.array(follow(PoseLimiter(POSE), pose((0.95, 0.0, 0.3)), 60))
    assert path[-1, 0] == pytest.approx(0.8, abs=1e-6)
    assert path[:, 0].max() <= 0.8 + 1e-12


def test_a_pose_far_off_is_a_jump() -> None:
    limiter = PoseLimiter(POSE)
    assert limiter.jump(pose((0.57, 0.0, 0.3)), state(0)) is None
    assert limiter.jump(pose((0.59, 0.0, 0.3)), state(0)) == "step: got 0.09 m, expected at most 0.08 m"
    assert limiter.jump(pose(rotvec=(0.0, 0.3, 0.0)), state(0)) == "turn: got 0.3 rad, expected at most 0.2 rad"


def test_the_hold_is_what_was_sent_last_or_else_where_the_robot_stands() -> None:
    limiter = PoseLimiter(POSE)
    assert limiter.hold(None) is None
    assert np.array_equal(limiter.hold(state(0)), pose())
    sent = follow(limiter, pose((0.55, 0.0, 0.3)), 3)[-1]
    assert np.array_equal(limiter.hold(state(0, position=(0.4, 0.0, 0.3))), sent)


# ---- joints -----------------------------------------------------------------------------------------------------


def test_joints_are_approached_within_speed_and_acceleration_and_stay_in_range() -> None:
    path = np.array(follow(JointLimiter(JOINTS), np.array([0.5, -1.7]), 60))
    speeds = np.diff(np.concatenate([[[0.0, 0.0]], path]), axis=0) / PERIOD_S
    np.testing.assert_allclose(path[-1], [0.5, -1.0], atol=1e-6)
    assert np.abs(speeds).max() <= 2.0 + 1e-9
    assert np.abs(np.diff(np.concatenate([[[0.0, 0.0]], speeds]), axis=0)).max() <= 20.0 * PERIOD_S + 1e-9
    assert path[:, 0].max() <= 0.5 + 1e-9
    assert path[:, 1].min() >= -1.0 - 1e-9


def test_the_joint_that_jumps_is_named() -> None:
    limiter = JointLimiter(JOINTS)
    assert limiter.jump(np.array([0.4, 0.0]), state(0)) is None
    assert limiter.jump(np.array([0.0, 0.5]), state(0)) == "step of b: got 0.5 rad, expected at most 0.4 rad"


def test_joint_commands_keep_the_order_of_the_action_whatever_the_order_of_the_states() -> None:
    data = JOINTS.model_dump(mode="json")
    data["joints"]["names"] = ["finger", "b", "a"]
    limiter = JointLimiter(type(JOINTS).model_validate(data))
    np.testing.assert_allclose(limiter.hold(state(0, joints=(0.04, 0.2, 0.1))), [0.1, 0.2])


# ---- gripper and bounds -----------------------------------------------------------------------------------------


def test_the_gripper_moves_at_its_speed_within_0_and_1() -> None:
    limiter = GripperLimiter(4.0)
    assert limiter.limit(1.3, PERIOD_S) == 1.0
    assert limiter.limit(0.0, PERIOD_S) == pytest.approx(0.8)
    assert limiter.limit(0.7, PERIOD_S) == pytest.approx(0.7)
    assert limiter.hold() == pytest.approx(0.7)
    limiter.begin()
    assert limiter.limit(0.0, PERIOD_S) == 0.0


@pytest.mark.parametrize(("position", "words"), [
    ((0.84, 0.0, 0.3), None),
    ((0.86, 0.0, 0.3), "x = 0.860 m, expected 0.200 .. 0.800 m"),
    ((0.5, 0.0, -0.06), "z = -0.060 m, expected 0.000 .. 0.600 m"),
])
def test_a_tool_outside_by_more_than_the_margin_is_told(position: tuple[float, ...], words: str | None) -> None:
    told = outside(TWIST, state(0, position=position))
    assert told is None if words is None else words in told


def test_a_joint_outside_its_range_is_told() -> None:
    assert outside(JOINTS, state(0, joints=(1.04, 0.0, 0.0))) is None
    assert "joint b stands at -1.100 rad" in outside(JOINTS, state(0, joints=(0.0, -1.1, 0.0)))

"""Wishes, states and clocks in; chunks, their end, and what the operator is told, out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from guarding import CENTRE, DT_NS, T0, joint_contract, pose_contract, state, twist_contract

from vla_policy.action.arbiter import Driver
from vla_policy.action.guard import Guard
from vla_policy.action.safety import GuardState
from vla_policy.contract import RobotContract
from vla_policy.teleop.operator import GuardWord, Operator, Step, TeleopState
from vla_policy.teleop.planner import JogPlanner, LeaderPlanner, PosePlanner, TwistPlanner, make_planner
from vla_policy.teleop.wish import Wish
from vla_policy.types import NS_PER_S, Observation

FIRST_RUN = 1000
READY = GuardWord(None, has_control=False)
MINE = GuardWord(None, has_control=True)
LATCHED = GuardWord("the guard is latched: test", has_control=True)
FORWARD = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])


def make(contract: RobotContract | None = None, **settings: Any) -> Operator:
    """An operator whose device is silent after 0.3 s, whose chunks reach 0.3 s."""
    contract = contract or twist_contract()
    leader_rad = settings.pop("engage_within_rad", None)
    return Operator(contract, make_planner(contract, leader_rad), device="the stick", silence_s=0.3,
                    first_run_id=FIRST_RUN, **settings)


def turn(operator: Operator, k: int, wish: Wish | None = None, guard: GuardWord = READY,
         robot: Observation | None = None) -> Step:
    """The step at k periods after T0 with a fresh state; `wish`: what the device says then, None: nothing."""
    now_ns = T0 + k * DT_NS
    if wish is not None:
        operator.hear(wish, now_ns)
    return operator.step(now_ns, now_ns, robot or state(now_ns), guard)


def hold(motion: Any = FORWARD, **details: Any) -> Wish:
    return Wish(True, np.array(motion, dtype=np.float64), **details)


def let_go(motion: Any = FORWARD) -> Wish:
    return Wish(False, np.array(motion, dtype=np.float64))


def driving(operator: Operator) -> Step:
    """Release at -1, hold at 0: the step that begins to drive."""
    turn(operator, -1, let_go())
    step = turn(operator, 0, hold())
    assert step.chunk is not None and operator.driving
    return step


# ---- the switch -------------------------------------------------------------------------------------------------


def test_without_the_switch_nothing_is_sent() -> None:
    step = turn(make(), 0, let_go())
    assert (step.state, step.alive, step.chunk) == (TeleopState.OFF, True, None)
    assert step.message == "hold the dead-man switch to take over"


def test_holding_the_switch_sends_chunks_of_a_run_and_releasing_it_ends_the_run() -> None:
    operator = make()
    step = driving(operator)
    assert step.state is TeleopState.DRIVING
    assert (step.chunk.run_id, step.chunk.stamp_ns, step.chunk.dt_ns) == (FIRST_RUN, T0, DT_NS)
    assert step.chunk.values.shape == (6, 7)  # 0.3 s of rows
    np.testing.assert_allclose(step.chunk.values, np.tile([0.01, 0, 0, 0, 0, 0, 1.0], (6, 1)))  # half of 0.4 m/s
    step = turn(operator, 1, let_go(), MINE)
    assert (step.state, step.chunk, step.ended_run_id) == (TeleopState.HOLDING, None, FIRST_RUN)
    assert turn(operator, 2, let_go(), MINE).ended_run_id == 0
    assert turn(operator, 3, hold(), MINE).chunk.run_id == FIRST_RUN + 1


def test_a_switch_that_is_held_from_the_start_moves_nothing_until_it_is_let_go() -> None:
    operator = make()
    for k in range(5):
        step = turn(operator, k, hold())
        assert step.chunk is None
    assert step.message == "release the dead-man switch, then hold it again to drive"
    turn(operator, 5, let_go())
    assert turn(operator, 6, hold()).chunk is not None


def test_rows_reach_as_far_from_now_however_old_the_state_is() -> None:
    operator = make()
    turn(operator, -1, let_go())
    step = turn(operator, 0, hold(), robot=state(T0 - 3 * DT_NS))
    assert len(step.chunk.values) == 9 and step.chunk.stamp_ns == T0 - 3 * DT_NS


def test_a_state_gives_one_chunk_and_states_in_a_hurry_give_no_more_than_commands_are_sent() -> None:
    operator = make()
    driving(operator)
    assert turn(operator, 1, hold(), MINE, state(T0)).chunk is None
    now_ns = T0 + DT_NS // 2
    assert operator.step(now_ns, now_ns, state(now_ns), MINE).chunk is None
    now_ns = T0 + DT_NS * 4 // 5
    assert operator.step(now_ns, now_ns, state(now_ns), MINE).chunk is not None


def test_control_that_was_handed_back_needs_the_switch_anew() -> None:
    operator = make()
    driving(operator)
    operator.release()
    step = turn(operator, 1, hold(), MINE)
    assert (step.chunk, step.ended_run_id) == (None, FIRST_RUN)
    turn(operator, 2, let_go())
    assert turn(operator, 3, hold()).chunk is not None


# ---- faults -----------------------------------------------------------------------------------------------------


def test_silence_with_the_switch_held_counts_as_released_and_is_said_once() -> None:
    operator = make()
    driving(operator)
    assert turn(operator, 6, None, MINE).chunk is not None  # 0.30 s
    step = turn(operator, 7, None, MINE)
    assert (step.state, step.alive, step.chunk, step.ended_run_id) == (TeleopState.HOLDING, False, None, FIRST_RUN)
    assert step.warnings == ("the stick was silent for more than 0.3 s with the dead-man switch held: it counts as "
                             "released, the arm holds",)
    assert turn(operator, 8, None, MINE).warnings == ()
    assert turn(operator, 8, None, MINE).message == "the stick is silent"
    step = turn(operator, 9, hold(), MINE)
    assert step.warnings == ("the stick speaks again; release the dead-man switch and hold it again to drive",)
    assert step.chunk is None
    turn(operator, 10, let_go(), MINE)
    assert turn(operator, 11, hold(), MINE).chunk is not None


def test_silence_without_the_switch_is_shown_but_no_event() -> None:
    operator = make()
    turn(operator, 0, let_go())
    step = turn(operator, 9)
    assert (step.alive, step.warnings, step.message) == (False, (), "the stick is silent")


def test_a_device_that_cannot_be_read_counts_as_released_and_is_told_once() -> None:
    operator = make()
    driving(operator)
    for k in (1, 2):
        operator.refuse("/joy: got 6 axes, expected 8")
        step = turn(operator, k, None, MINE)
        assert (step.state, step.alive, step.chunk) == (TeleopState.HOLDING, False, None)
        assert step.warnings == (("/joy: got 6 axes, expected 8",) if k == 1 else ())
        assert step.ended_run_id == (FIRST_RUN if k == 1 else 0)
    step = turn(operator, 3, hold(), MINE)
    assert step.chunk is None and step.warnings == ("the stick can be read again",)


def test_a_latched_guard_blocks_until_the_switch_is_held_anew() -> None:
    operator = make()
    driving(operator)
    step = turn(operator, 1, hold(), LATCHED)
    assert (step.state, step.chunk, step.ended_run_id) == (TeleopState.BLOCKED, None, FIRST_RUN)
    assert step.message == LATCHED.fault
    assert turn(operator, 2, hold(), MINE).chunk is None
    turn(operator, 3, let_go(), MINE)
    assert turn(operator, 4, hold(), MINE).chunk is not None


def test_an_operator_who_is_displaced_by_another_lets_go() -> None:
    operator = make()
    driving(operator)
    for k, run_id in ((1, 7), (2, FIRST_RUN), (3, FIRST_RUN)):  # the news of this run takes its time
        assert turn(operator, k, hold(), replace(MINE, run_id=run_id)).chunk is not None
    step = turn(operator, 4, hold(), replace(MINE, run_id=8))
    assert (step.chunk, step.ended_run_id) == (None, FIRST_RUN)
    assert step.warnings[0].startswith("run 8 drives the robot now")
    assert turn(operator, 5, hold(), replace(MINE, run_id=8)).chunk is None
    turn(operator, 6, let_go(), replace(MINE, run_id=8))
    assert turn(operator, 7, hold(), replace(MINE, run_id=8)).chunk is not None


@pytest.mark.parametrize(("robot", "words"), [
    (replace(state(T0), pose=None), "the robot's state is missing, expected joints and pose"),
    (state(T0 - 8 * DT_NS), "0.40 s old, expected at most 0.3 s"),
    (state(T0, position=(np.nan, 0.0, 0.3)), "not finite"),
])
def test_a_robot_whose_state_is_bad_is_not_driven(robot: Observation, words: str) -> None:
    operator = make()
    turn(operator, -1, let_go())
    step = turn(operator, 0, hold(), robot=robot)
    assert step.chunk is None and words in step.message
    assert len(step.warnings) == 1 and step.warnings[0].startswith("the arm holds: ")
    assert turn(operator, 0, hold(), robot=robot).warnings == ()


# ---- the gripper ------------------------------------------------------------------------------------------------


def test_the_gripper_goes_on_from_what_was_sent_and_toggles_while_driving() -> None:
    operator = make()
    operator.hear_opening(0.2)
    assert not operator.toggle_gripper()
    assert driving(operator).chunk.values[0, -1] == pytest.approx(0.2)
    assert operator.toggle_gripper()
    operator.hear_opening(0.4)  # on its way
    assert turn(operator, 1, hold(), MINE).chunk.values[0, -1] == 1.0


def test_an_axis_for_the_gripper_is_followed() -> None:
    operator = make()
    turn(operator, -1, let_go())
    assert turn(operator, 0, hold(opening=0.3)).chunk.values[0, -1] == pytest.approx(0.3)


# ---- rows by the kind of robot ----------------------------------------------------------------------------------


def drive(operator: Operator, wish: Wish, periods: int, robot: Any) -> np.ndarray:
    """The first row for now after so many periods of a wish, (A,). robot(k): the state."""
    turn(operator, -1, let_go(), robot=robot(-1))
    for k in range(periods + 1):
        step = turn(operator, k, wish, MINE, robot(k))
        assert step.chunk is not None, step
    return step.chunk.values[0]


def test_diagonals_are_no_faster_than_straight_lines() -> None:
    planner = TwistPlanner(twist_contract())
    (row,) = planner.rows(hold([1.0, 1.0, 0.0, 0.0, 0.0, 1.0]), state(0), np.zeros(1), 0.0)
    assert np.linalg.norm(row[:3]) == pytest.approx(0.4 * 0.05)
    assert row[5] == pytest.approx(1.0 * 0.05)


def test_a_twist_moves_a_target_pose_from_where_the_tool_is() -> None:
    row = drive(make(pose_contract()), hold([0.5, 0, 0, 0, 0, 1.0]), 2,
                lambda k: state(T0 + k * DT_NS))
    np.testing.assert_allclose(row, [0.5 + 2 * 0.2 * 0.05, 0.0, 0.3, 0.0, 0.0, 2 * 0.05, 1.0], atol=1e-12)


def test_later_rows_go_on_with_the_motion() -> None:
    operator = make(pose_contract())
    turn(operator, -1, let_go())
    values = turn(operator, 0, hold()).chunk.values
    np.testing.assert_allclose(values[:, 0], 0.5 + 0.2 * 0.05 * np.arange(6), atol=1e-12)


def test_a_target_stays_near_a_blocked_arm_and_in_the_workspace() -> None:
    row = drive(make(pose_contract()), hold([1.0, 0, 0, 0, 0, 1.0]), 40, lambda k: state(T0 + k * DT_NS))
    assert row[0] == pytest.approx(0.5 + 0.4 * 0.5)  # half a second ahead
    assert row[5] == pytest.approx(1.0 * 0.5)
    near_wall = drive(make(pose_contract()), hold([1.0, 0, 0, 0, 0, 0]), 40,
                      lambda k: state(T0 + k * DT_NS, position=(0.75, 0.0, 0.3)))
    assert near_wall[0] == pytest.approx(0.8)


def test_a_tool_outside_its_workspace_can_be_brought_back_only() -> None:
    outside = {"position": (0.82, 0.0, 0.3)}
    further = drive(make(pose_contract()), hold([1.0, 0, 0, 0, 0, 0]), 4, lambda k: state(T0 + k * DT_NS, **outside))
    back = drive(make(pose_contract()), hold([-0.5, 0, 0, 0, 0, 0]), 4, lambda k: state(T0 + k * DT_NS, **outside))
    assert further[0] == pytest.approx(0.82) and back[0] == pytest.approx(0.82 - 4 * 0.2 * 0.05)


def test_joints_are_jogged_within_their_ranges_and_their_leash() -> None:
    row = drive(make(joint_contract()), hold([0.5, -0.25]), 2, lambda k: state(T0 + k * DT_NS))
    np.testing.assert_allclose(row, [2 * 1.0 * 0.05, -2 * 0.5 * 0.05, 1.0])
    blocked = drive(make(joint_contract()), hold([1.0, 0.0]), 60, lambda k: state(T0 + k * DT_NS))
    assert blocked[0] == pytest.approx(1.0)  # leash 1.0 rad, range 1.0 rad
    planner = JogPlanner(joint_contract())
    planner.begin(state(0), hold([1.0, 0.0]))
    rows = planner.rows(hold([1.0, 0.0]), state(0), np.array([-0.1, 0.0, 0.3, 9.0]), 0.1)
    np.testing.assert_allclose(rows[:, 0], [0.2, 0.2, 0.8, 1.0])


def test_a_leader_far_from_the_follower_is_refused_joint_by_joint() -> None:
    operator = make(joint_contract(), engage_within_rad=0.1)
    turn(operator, -1, let_go())
    far = hold([0, 0], targets=np.array([0.05, -0.4]))
    step = turn(operator, 0, far)
    assert step.chunk is None
    assert step.message == ("the leader is not where the follower is: got b -0.40 rad, expected at most 0.1 rad; move "
                            "the leader there")
    turn(operator, 1, let_go())
    assert turn(operator, 2, hold([0, 0], targets=np.array([0.05, -0.09]))).chunk is not None


def test_a_leader_is_followed_no_faster_than_the_joints_may_move() -> None:
    planner = LeaderPlanner(joint_contract(), 0.1)
    wish = hold([0, 0], targets=np.array([0.05, -0.05]))
    assert planner.begin(state(0), wish) is None
    leaps = hold([0, 0], targets=np.array([0.9, -0.05]))
    np.testing.assert_allclose(planner.rows(leaps, state(0), np.zeros(2), 0.05), [[0.1, -0.05]] * 2)


@pytest.mark.parametrize("contract", [twist_contract(), pose_contract(), joint_contract()])
def test_the_guard_passes_what_an_operator_sends_at_full_speed(contract: RobotContract) -> None:
    """Never a jump; a robot that goes where it is sent follows until the switch is released, and then stands."""
    operator, guard = make(contract), Guard(contract)
    size = 2 if contract.action.joints else 6
    full, joints, position = np.zeros(size), np.zeros(3), np.array(CENTRE)
    full[0] = 1.0
    turn(operator, -1, let_go(full))
    for k in range(8):
        robot = state(T0 + k * DT_NS, position=position, joints=joints)
        step = turn(operator, k, hold(full), GuardWord(None, guard.operator_has_control), robot)
        guard.accept(step.chunk, T0 + k * DT_NS, Driver.OPERATOR)
        sent = guard.command(T0 + k * DT_NS, robot, T0 + k * DT_NS).sent
        assert guard.status.state in (GuardState.ACTIVE, GuardState.LIMITING), guard.status
        if contract.action.kind == "ee_delta":
            position = position + sent.arm[:3] * DT_NS / NS_PER_S
        elif contract.action.kind == "ee_pose":
            position = sent.arm[:3]
        else:
            joints = np.append(sent.arm, 0.0)
    moved = joints[0] if contract.action.joints else position[0] - CENTRE[0]
    assert moved > (0.3 if contract.action.joints else 0.08)


def test_each_kind_has_its_planner() -> None:
    assert isinstance(make_planner(twist_contract()), TwistPlanner)
    assert isinstance(make_planner(pose_contract()), PosePlanner)
    assert type(make_planner(joint_contract())) is JogPlanner
    assert isinstance(make_planner(joint_contract(), 0.1), LeaderPlanner)

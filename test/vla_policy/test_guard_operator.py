"""Chunks of a policy and of an operator in; whose command is sent, and what follows a hand-back or a stop, out."""

from __future__ import annotations

import numpy as np
import pytest
from guarding import DT_NS, T0, assert_stopped, chunk, pose_contract, running, state, tick, twist_contract, twist_rows

from vla_policy.action.arbiter import Arbiter, Driver
from vla_policy.action.guard import FIRST_STATE_S, Guard
from vla_policy.action.safety import GuardState, StopReason
from vla_policy.types import NS_PER_S

POLICY_RUN, OPERATOR_RUN = 1, 100


def policy_sends(guard: Guard, k: int, run_id: int = POLICY_RUN) -> bool:
    """A chunk of 0.1 m/s from the observation of tick k."""
    return guard.accept(chunk(T0 + k * DT_NS, twist_rows(8, 0.1), run_id), T0 + k * DT_NS)


def operator_sends(guard: Guard, k: int, run_id: int = OPERATOR_RUN, gripper: float = 1.0) -> bool:
    """A chunk of -0.1 m/s from the state of tick k."""
    rows = twist_rows(8, -0.1, gripper=gripper)
    return guard.accept(chunk(T0 + k * DT_NS, rows, run_id), T0 + k * DT_NS, Driver.OPERATOR)


def speed(guard: Guard, k: int) -> float:
    """What is sent along x at tick k [m/s]."""
    return tick(guard, k).sent.arm[0]


# ---- who drives -------------------------------------------------------------------------------------------------


def test_the_arbiter_hears_the_operator_first_and_after_the_hand_back_only_what_saw_it() -> None:
    arbiter = Arbiter()
    assert arbiter.hears(Driver.POLICY, 0)
    assert arbiter.hears(Driver.OPERATOR, 0) and arbiter.hears(Driver.POLICY, 1)  # hearing alone takes nothing over
    arbiter.take_over()
    assert arbiter.operator_has_control
    assert not arbiter.hears(Driver.POLICY, 10) and arbiter.hears(Driver.OPERATOR, 10)
    arbiter.hand_back(20)
    assert not arbiter.operator_has_control
    assert [arbiter.hears(Driver.POLICY, stamp) for stamp in (19, 20, 21)] == [False, False, True]
    assert arbiter.overruled == 3


def test_an_operator_drives_without_any_policy() -> None:
    guard = Guard(twist_contract())
    assert operator_sends(guard, 0)
    decision = tick(guard, 0)
    assert decision.sent.arm[0] == pytest.approx(-0.1)
    assert decision.run_id == OPERATOR_RUN
    assert guard.operator_has_control
    assert guard.status.message == "the operator drives the robot"


def test_the_operators_first_chunk_takes_over_and_the_policy_is_put_aside() -> None:
    guard = running()
    assert operator_sends(guard, 1)
    assert speed(guard, 1) == pytest.approx(-0.1)
    for k in range(2, 5):
        assert not policy_sends(guard, k)
        operator_sends(guard, k)
        assert speed(guard, k) == pytest.approx(-0.1)
    assert (guard.overruled_chunks, guard.ignored_chunks) == (3, 0)


def test_a_policy_that_sends_nonsense_while_it_is_overruled_stops_nobody() -> None:
    guard = running()
    operator_sends(guard, 1)
    guard.accept(chunk(T0 + DT_NS, np.full((8, 7), np.nan), POLICY_RUN), T0)
    guard.refuse(POLICY_RUN, "names: got x", Driver.POLICY)
    assert speed(guard, 1) == pytest.approx(-0.1)
    assert guard.status.state is GuardState.ACTIVE


def test_a_released_switch_holds_and_stays_the_operators() -> None:
    guard = running()
    operator_sends(guard, 1)
    tick(guard, 1)
    guard.end_run(OPERATOR_RUN, T0)
    for k in range(2, 40):  # longer than the silence that stops a run
        assert not policy_sends(guard, k)
        decision = tick(guard, k)
        assert not decision.sent.arm.any() and decision.run_id == 0
    assert guard.status.state is GuardState.IDLE
    assert guard.status.message == "the operator has control, the robot holds"
    operator_sends(guard, 40, OPERATOR_RUN + 1)
    assert speed(guard, 40) == pytest.approx(-0.1)


def test_taking_over_without_a_chunk_holds_at_once() -> None:
    guard = running()
    guard.take_over()
    assert not tick(guard, 1).sent.arm.any()
    assert guard.status.state is GuardState.IDLE and guard.operator_has_control


def test_after_the_hand_back_the_same_run_goes_on_from_later_observations_only() -> None:
    guard = running()
    operator_sends(guard, 1)
    guard.end_run(OPERATOR_RUN, T0)
    guard.hand_back(T0 + 5 * DT_NS)
    assert guard.status.message == "the operator handed back, the robot holds until run 1 goes on"
    assert not policy_sends(guard, 5)
    assert not tick(guard, 5).sent.arm.any()
    assert policy_sends(guard, 6)
    assert tick(guard, 6).run_id == POLICY_RUN
    assert guard.status.state is GuardState.ACTIVE and not guard.operator_has_control


def test_handing_back_with_the_switch_held_ends_what_the_operator_sends() -> None:
    guard = running()
    operator_sends(guard, 1)
    guard.hand_back(T0 + DT_NS)
    assert not operator_sends(guard, 2)
    assert not tick(guard, 2).sent.arm.any()
    assert not guard.operator_has_control


def test_a_run_that_ended_or_was_replaced_meanwhile_does_not_go_on() -> None:
    ended = running()
    ended.take_over()
    ended.end_run(POLICY_RUN, T0)
    ended.hand_back(T0)
    assert not policy_sends(ended, 2) and ended.ignored_chunks == 1

    replaced = running()
    replaced.take_over()
    replaced.hand_back(T0)
    assert policy_sends(replaced, 2, run_id=2)
    assert not policy_sends(replaced, 3)
    assert replaced.run_id == 2


def test_the_gripper_goes_from_hand_to_hand_at_its_own_speed() -> None:
    guard = running()  # sent 1.0
    operator_sends(guard, 1, gripper=0.0)
    assert tick(guard, 1).sent.gripper == pytest.approx(0.8)
    guard.end_run(OPERATOR_RUN, T0)
    guard.hand_back(T0 + DT_NS)
    policy_sends(guard, 2)
    assert tick(guard, 2).sent.gripper == pytest.approx(1.0)


def test_an_operator_begins_where_the_robot_stands() -> None:
    guard = Guard(pose_contract())
    guard.accept(chunk(T0, np.tile([0.5, 0.0, 0.3, 0, 0, 0, 1.0], (8, 1)), OPERATOR_RUN), T0, Driver.OPERATOR)
    sent = tick(guard, 0, state(T0, position=(0.45, 0.0, 0.3))).sent
    assert sent.arm[0] == pytest.approx(0.46)  # a first step of 0.2 m/s, from where it stands


# ---- what stops an operator -------------------------------------------------------------------------------------


def test_an_operator_without_rows_stops_by_name() -> None:
    guard = Guard(twist_contract())
    operator_sends(guard, 0)
    tick(guard, 8)
    assert_stopped(guard, StopReason.CHUNK_STALE, "is the teleoperation dead or too slow?")
    assert guard.operator_has_control


def test_an_operator_who_is_silent_stops_by_name() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, twist_rows(40), OPERATOR_RUN), T0, Driver.OPERATOR)
    guard.watch(T0, T0 + NS_PER_S)
    assert_stopped(guard, StopReason.SILENCE, "is the teleoperation alive?")


@pytest.mark.parametrize(("now_k", "steady_k", "words"), [(-1, 1, "went back"), (25, 1, "leapt forward")])
def test_a_clock_that_jumps_stops_an_operator(now_k: int, steady_k: int, words: str) -> None:
    guard = Guard(twist_contract())
    operator_sends(guard, 0)
    tick(guard, 0)
    guard.command(T0 + now_k * DT_NS, state(T0 + now_k * DT_NS), T0 + steady_k * DT_NS)
    assert_stopped(guard, StopReason.CLOCK_JUMP, words)


def test_an_operators_chunk_is_judged_and_limited_like_a_policys() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, twist_rows(8, 1.0), OPERATOR_RUN), T0, Driver.OPERATOR)
    assert tick(guard, 0).sent.arm[0] == pytest.approx(0.2)
    assert guard.status.state is GuardState.LIMITING
    guard.accept(chunk(T0 + DT_NS, np.full((8, 7), np.nan), OPERATOR_RUN), T0, Driver.OPERATOR)
    assert_stopped(guard, StopReason.CHUNK_INVALID, "chunk of the operator refused")


def test_a_stop_is_over_for_all_and_control_stays_with_the_operator() -> None:
    guard = running()
    operator_sends(guard, 1)
    guard.estop(True)
    for k in range(2, 4):
        assert not operator_sends(guard, k)
        assert not tick(guard, k).sent.arm.any()
    guard.estop(False)
    assert guard.reset() == (True, "reset after ESTOP; waiting for the operator")
    assert not operator_sends(guard, 4)  # the switch was held all the time
    assert operator_sends(guard, 5, OPERATOR_RUN + 1)
    assert speed(guard, 5) == pytest.approx(-0.1)
    guard.end_run(OPERATOR_RUN + 1, T0)
    guard.hand_back(T0 + 5 * DT_NS)
    assert not policy_sends(guard, 6)  # its run was stopped with the robot


# ---- a robot that was not heard yet -----------------------------------------------------------------------------


@pytest.mark.parametrize("driver", Driver)
def test_before_the_first_state_nothing_is_sent_and_then_the_run_begins(driver: Driver) -> None:
    guard = Guard(twist_contract())
    for k in range(6):
        guard.accept(chunk(T0 + k * DT_NS, twist_rows(8, 0.1), 5), T0 + k * DT_NS, driver)
        decision = guard.command(T0 + k * DT_NS, None, T0 + k * DT_NS)
        assert (decision.sent, decision.raw) == (None, None)
        assert decision.status.state is GuardState.IDLE
        assert "waits for the robot's first joints and pose" in decision.status.message
    guard.accept(chunk(T0 + 6 * DT_NS, twist_rows(8, 0.1), 5), T0 + 6 * DT_NS, driver)
    assert speed(guard, 6) == pytest.approx(0.1)
    assert guard.status.state is GuardState.ACTIVE
    guard.command(T0 + 7 * DT_NS, None, T0 + 7 * DT_NS)  # once heard, its absence is a fault
    assert_stopped(guard, StopReason.STATE_STALE, "missing")


def test_a_robot_that_is_never_heard_stops_the_run_after_a_time() -> None:
    guard, periods = Guard(twist_contract()), round(FIRST_STATE_S * NS_PER_S / DT_NS)
    for k in range(periods + 2):
        guard.accept(chunk(T0 + k * DT_NS, twist_rows(8, 0.1)), T0 + k * DT_NS)
        guard.command(T0 + k * DT_NS, None, T0 + k * DT_NS)
        assert (guard.status.state is GuardState.STOPPED) == (k > periods)
    assert_stopped(guard, StopReason.STATE_STALE, "missing, expected joints and pose")


def test_a_robot_that_waits_is_watched_all_the_same() -> None:
    guard = Guard(twist_contract())
    policy_sends(guard, 0)
    guard.command(T0, None, T0)
    guard.command(T0 + 11 * DT_NS, None, T0 + 11 * DT_NS)
    assert_stopped(guard, StopReason.SILENCE, "is the policy alive?")

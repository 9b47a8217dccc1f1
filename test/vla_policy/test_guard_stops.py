"""Faults and two clocks in; a stop latched with its numbered reason and one sentence, and what is sent then, out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from guarding import (
    CENTRE,
    DT_NS,
    T0,
    assert_stopped,
    chunk,
    joint_contract,
    pose_contract,
    running,
    state,
    tick,
    twist_contract,
    twist_rows,
)

from vla_policy.action.guard import Guard
from vla_policy.action.safety import GuardState, StopReason
from vla_policy.contract import RobotContract, load_contract
from vla_policy.types import ActionChunk, Observation

# ---- what stops the robot ---------------------------------------------------------------------------------------


def test_a_shipped_contract_stops_as_it_says() -> None:
    contract = load_contract(Path(__file__).resolve().parents[2] / "config" / "robots" / "tabletop.yaml")
    guard = Guard(contract)
    guard.stop(StopReason.ESTOP, "test")
    decision = guard.command(T0, None, T0)
    assert decision.sent is not None and not decision.sent.arm.any()


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda c: replace(c, values=np.where(np.arange(56).reshape(8, 7) == 9, np.nan, c.values)),
     "got nan in row 1, column z"),
    (lambda c: replace(c, values=np.full((8, 7), np.inf)), "got inf in row 0, column x"),
    (lambda c: replace(c, values=c.values[:, :6]), "shape (8, 6), expected (rows, 7)"),
    (lambda c: replace(c, values=c.values[:0]), "shape (0, 7)"),
    (lambda c: replace(c, values=c.values.ravel()), "shape (56,)"),
    (lambda c: replace(c, dt_ns=DT_NS + 1), "got dt 50000001 ns, expected 50000000 ns"),
    (lambda c: replace(c, execute_rows=9), "got execute_rows 9, expected 1 .. 8"),
    (lambda c: replace(c, run_id=0), "got run_id 0"),
])
def test_an_invalid_chunk_stops(spoil: Callable[[ActionChunk], ActionChunk], words: str) -> None:
    guard = running()
    guard.accept(spoil(chunk(T0 + DT_NS, twist_rows(8, 0.1))), T0 + DT_NS)
    assert_stopped(guard, StopReason.CHUNK_INVALID, words)
    decision = tick(guard, 1)
    assert decision.sent is not None and not decision.sent.arm.any()


def test_an_invalid_first_chunk_names_its_own_run_and_bars_it() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, np.full((8, 7), np.nan), run_id=4), T0)
    assert_stopped(guard, StopReason.CHUNK_INVALID, "run 4")
    assert guard.status.run_id == 4
    guard.reset()
    guard.accept(chunk(T0, twist_rows(8, 0.1), run_id=4), T0)
    assert guard.status.state is GuardState.IDLE


def test_an_exhausted_chunk_stops() -> None:
    guard = running(rows=4)
    tick(guard, 3)
    assert guard.status.state is GuardState.ACTIVE
    tick(guard, 4)
    assert_stopped(guard, StopReason.CHUNK_STALE, "0.20 s old", "reach 0.20 s")


def test_silence_is_measured_by_the_steady_clock() -> None:
    guard = running()
    guard.watch(T0, T0 + 10 * DT_NS)
    assert guard.status.state is GuardState.ACTIVE
    guard.watch(T0, T0 + 10 * DT_NS + 1)  # ROS time stands still
    assert_stopped(guard, StopReason.SILENCE, "no chunk for 0.50 s")


def test_silence_stops_within_a_command_too_and_a_chunk_ends_it() -> None:
    guard = running(rows=40)
    guard.accept(chunk(T0 + 8 * DT_NS, twist_rows(40, 0.1)), T0 + 8 * DT_NS)
    tick(guard, 18)
    assert guard.status.state is GuardState.ACTIVE
    tick(guard, 19)
    assert_stopped(guard, StopReason.SILENCE)


def test_a_dropped_chunk_does_not_count_as_a_sign_of_life() -> None:
    guard = running(rows=40)
    guard.accept(chunk(T0 - DT_NS, twist_rows(8)), T0 + 9 * DT_NS)
    tick(guard, 11)
    assert_stopped(guard, StopReason.SILENCE)


def test_silence_can_be_lifted_or_set() -> None:
    patient = running(silence_s=math.inf)
    patient.watch(T0, T0 + 10**15)
    assert patient.status.state is GuardState.ACTIVE
    strict = running(silence_s=0.1)
    strict.watch(T0, T0 + 3 * DT_NS)
    assert_stopped(strict, StopReason.SILENCE)


@pytest.mark.parametrize(("robot", "words"), [
    (None, "missing, expected joints and pose"),
    (replace(state(T0 + DT_NS), pose=None), "missing"),
    (state(T0 - 6 * DT_NS), "0.35 s old, expected at most 0.3 s"),
    (state(T0 + 8 * DT_NS), "-0.35 s old"),
    (state(T0 + DT_NS, position=(np.nan, 0.0, 0.3)), "not finite"),
    (state(T0 + DT_NS, joints=(0.0, np.inf, 0.0)), "not finite"),
])
def test_a_state_that_is_missing_old_or_broken_stops(robot: Observation | None, words: str) -> None:
    guard = running()
    decision = guard.command(T0 + DT_NS, robot, T0 + DT_NS)
    assert_stopped(guard, StopReason.STATE_STALE, words)
    assert decision.sent is not None and not decision.sent.arm.any()


def test_a_robot_outside_its_workspace_stops() -> None:
    guard = running()
    tick(guard, 1, state(T0 + DT_NS, position=(0.5, 0.46, 0.3)))
    assert_stopped(guard, StopReason.OUT_OF_BOUNDS, "y = 0.460 m")


def test_a_request_far_beyond_a_limit_is_a_fault_and_is_shown_as_asked() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, twist_rows(8, 2.0)), T0)
    decision = tick(guard, 0)
    assert_stopped(guard, StopReason.JUMP, "got 2 m/s, expected at most 1.6 m/s")
    assert decision.raw is not None and decision.raw.arm[0] == pytest.approx(2.0)
    assert decision.sent is not None and not decision.sent.arm.any()


def test_time_that_goes_back_stops() -> None:
    guard = running()
    guard.command(T0 - 1, state(T0), T0)
    assert_stopped(guard, StopReason.CLOCK_JUMP, "went back")


def test_time_that_leaps_ahead_of_the_steady_clock_stops() -> None:
    guard = running()
    now_ns = T0 + 22 * DT_NS
    guard.command(now_ns, state(now_ns), T0 + DT_NS)
    assert_stopped(guard, StopReason.CLOCK_JUMP, "leapt forward by 1.050 s")


def test_simulated_time_may_run_fast_in_small_steps() -> None:
    guard = Guard(twist_contract(), silence_s=math.inf)
    for k in range(200):
        now_ns = T0 + k * DT_NS
        if guard.must_wait(now_ns):
            guard.accept(chunk(now_ns, twist_rows(8, 0.001)), T0)
        assert guard.command(now_ns, state(now_ns), T0).status.state is GuardState.ACTIVE


def test_the_emergency_stop_stops_with_or_without_a_run() -> None:
    for guard in (Guard(twist_contract()), running()):
        guard.estop(True)
        assert_stopped(guard, StopReason.ESTOP)
        decision = tick(guard, 1)
        assert decision.sent is not None and not decision.sent.arm.any()


# ---- latching and reset -----------------------------------------------------------------------------------------


def test_the_first_reason_stays() -> None:
    guard = running()
    guard.watch(T0, T0 + 100 * DT_NS)
    guard.accept(chunk(T0 + DT_NS, np.full((8, 7), np.nan)), T0)
    guard.estop(True)
    assert_stopped(guard, StopReason.SILENCE)


def test_a_stop_holds_against_good_chunks_until_reset_and_a_new_run() -> None:
    guard = running()
    guard.watch(T0, T0 + 100 * DT_NS)
    for run_id in (1, 2):
        guard.accept(chunk(T0 + DT_NS, twist_rows(8, 0.1), run_id=run_id), T0)
        decision = tick(guard, 1)
        assert decision.sent is not None and not decision.sent.arm.any()
        assert_stopped(guard, StopReason.SILENCE)
        assert guard.status.run_id == run_id  # whoever drives now learns that it is stopped
    assert guard.ignored_chunks == 2
    assert not guard.must_wait(T0 + 9 * DT_NS)

    assert guard.reset() == (True, "reset after SILENCE; waiting for a new run")
    for run_id in (1, 2):  # a reset alone sets nothing in motion
        guard.accept(chunk(T0 + 2 * DT_NS, twist_rows(8, 0.1), run_id=run_id), T0)
        assert guard.status.state is GuardState.IDLE
    guard.accept(chunk(T0 + 2 * DT_NS, twist_rows(8, 0.1), run_id=3), T0 + 2 * DT_NS)
    decision = tick(guard, 2)
    assert decision.sent is not None and decision.sent.arm[0] == pytest.approx(0.1)


def test_reset_is_refused_while_the_emergency_stop_is_pressed() -> None:
    guard = running()
    guard.estop(True)
    done, message = guard.reset()
    assert not done and "still pressed" in message
    assert_stopped(guard, StopReason.ESTOP)
    guard.estop(False)
    assert_stopped(guard, StopReason.ESTOP)
    assert guard.reset()[0]
    assert guard.status.state is GuardState.IDLE


def test_reset_without_a_stop_changes_nothing() -> None:
    guard = running()
    assert guard.reset() == (True, "nothing to reset, the guard is not stopped")
    assert guard.status.state is GuardState.ACTIVE


# ---- stop behaviours --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [twist_contract, pose_contract, joint_contract])
def test_silent_drivers_get_nothing_when_stopped(make: Callable[..., RobotContract]) -> None:
    guard = Guard(make(stop={"behaviour": "silence"}))
    guard.stop(StopReason.ESTOP, "test")
    assert tick(guard, 0).sent is None


def test_the_gripper_opens_at_a_stop_if_the_contract_says_so_and_not_at_the_end_of_a_run() -> None:
    contract = twist_contract(stop={"behaviour": "zero_velocity", "gripper": "open"})
    guard = Guard(contract)
    guard.accept(chunk(T0, twist_rows(8, 0.1, gripper=0.0)), T0)
    assert tick(guard, 0).sent.gripper == 0.0
    ended = Guard(contract)
    ended.accept(chunk(T0, twist_rows(8, 0.1, gripper=0.0)), T0)
    tick(ended, 0)
    ended.end_run(1, T0)
    assert tick(ended, 1).sent.gripper == 0.0
    guard.estop(True)
    openings = [tick(guard, k).sent.gripper for k in range(1, 8)]
    np.testing.assert_allclose(openings, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0])


def pose_rows(x_m: float) -> np.ndarray:
    return np.tile([x_m, 0.0, 0.3, 0.0, 0.0, 0.0, 1.0], (20, 1))


def test_a_pose_robot_holds_what_was_sent_last() -> None:
    guard = Guard(pose_contract())
    guard.accept(chunk(T0, pose_rows(0.56)), T0)
    for k in range(3):
        last = tick(guard, k).sent
    guard.estop(True)
    for k in range(3, 6):
        held = tick(guard, k, state(T0 + k * DT_NS, position=(0.51, 0.0, 0.3))).sent
        assert np.array_equal(held.arm, last.arm)
    assert CENTRE[0] < last.arm[0] < 0.56


def test_a_pose_robot_that_was_never_driven_holds_where_it_stands_and_never_a_broken_pose() -> None:
    guard = Guard(pose_contract())
    guard.estop(True)
    assert tick(guard, 0, state(T0, position=(np.nan, 0.0, 0.3))).sent is None
    sent = tick(guard, 1).sent
    np.testing.assert_array_equal(sent.arm, [*CENTRE, 0.0, 0.0, 0.0, 1.0])
    assert sent.gripper is None


def test_a_joint_robot_follows_holds_and_needs_no_pose() -> None:
    guard = Guard(joint_contract())
    guard.accept(chunk(T0, np.tile([0.3, -0.3, 0.5], (20, 1))), T0)
    for k in range(9):
        sent = tick(guard, k, replace(state(T0 + k * DT_NS), pose=None)).sent
    np.testing.assert_allclose(sent.arm, [0.3, -0.3], atol=0.02)
    guard.estop(True)
    assert np.array_equal(tick(guard, 9).sent.arm, sent.arm)


def test_a_joint_beyond_its_range_stops() -> None:
    guard = Guard(joint_contract())
    guard.accept(chunk(T0, np.zeros((20, 3))), T0)
    tick(guard, 0, state(T0, joints=(0.0, 1.2, 0.0)))
    assert_stopped(guard, StopReason.OUT_OF_BOUNDS, "joint b")

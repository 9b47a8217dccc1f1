"""Chunks and robot states of a run in; limited commands, and what follows the end of the run, out."""

from __future__ import annotations

import numpy as np
import pytest
from guarding import CENTRE, DT_NS, T0, chunk, running, state, tick, twist_contract, twist_rows

from vla_policy.action.guard import Guard
from vla_policy.action.safety import GuardState

# ---- a run ------------------------------------------------------------------------------------------------------


def test_before_the_first_run_nothing_is_sent() -> None:
    guard = Guard(twist_contract())
    decision = tick(guard, 0)
    assert (decision.raw, decision.sent) == (None, None)
    assert guard.status.state is GuardState.IDLE
    assert guard.must_wait(T0)


def test_a_chunk_drives_the_robot_row_by_row() -> None:
    guard = Guard(twist_contract())
    rows = twist_rows(4)
    rows[:, 0] = np.array([1, 2, 3, 4]) * 0.001
    guard.accept(chunk(T0, rows, run_id=7), T0)
    for k in range(4):
        decision = tick(guard, k)
        assert decision.sent is not None and decision.raw is not None
        np.testing.assert_allclose(decision.sent.arm, [0.02 * (k + 1), 0, 0, 0, 0, 0], atol=1e-12)
        assert decision.sent.gripper == 1.0
        assert (decision.sent.stamp_ns, decision.row, decision.run_id) == (T0 + k * DT_NS, k, 7)
        assert decision.observation_stamp_ns == T0
    assert guard.status.state is GuardState.ACTIVE


def test_a_late_chunk_starts_at_the_row_for_now() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, twist_rows(8, 0.1)), T0 + 3 * DT_NS)
    assert tick(guard, 3).row == 3


def test_commands_beyond_the_limits_are_reduced_and_named() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, twist_rows(8, 1.0)), T0)
    decision = tick(guard, 0)
    assert decision.raw is not None and decision.sent is not None
    assert (decision.raw.arm[0], decision.sent.arm[0]) == (pytest.approx(1.0), pytest.approx(0.2))
    assert guard.status.state is GuardState.LIMITING
    assert guard.status.limited == (True, *[False] * 6)
    assert guard.status.message == "reduced to the limits: vx"


def test_the_gripper_is_limited_after_its_first_command() -> None:
    guard = running()
    guard.accept(chunk(T0 + DT_NS, twist_rows(8, 0.1, gripper=0.0)), T0 + DT_NS)
    decision = tick(guard, 1)
    assert decision.sent is not None and decision.sent.gripper == pytest.approx(0.8)
    assert guard.status.limited[-1]


def test_a_newer_chunk_is_needed_when_the_policy_meant_to_have_sent_one() -> None:
    guard = running()
    assert not guard.must_wait(T0 + DT_NS)
    assert guard.must_wait(T0 + 2 * DT_NS)
    guard.accept(chunk(T0 + 2 * DT_NS, twist_rows(8, 0.1)), T0)
    assert not guard.must_wait(T0 + 2 * DT_NS)


def test_a_chunk_older_than_the_newest_is_dropped() -> None:
    guard = running()
    guard.accept(chunk(T0 - DT_NS, twist_rows(8, -0.1)), T0)
    assert guard.dropped_chunks == 1
    decision = tick(guard, 1)
    assert decision.sent is not None and decision.sent.arm[0] == pytest.approx(0.1)


def test_a_new_run_starts_from_rest() -> None:
    guard = running(twist_contract())
    for k in range(1, 4):
        tick(guard, k)
    guard.accept(chunk(T0 + 4 * DT_NS, twist_rows(8, -0.4), run_id=2), T0 + 4 * DT_NS)
    decision = tick(guard, 4)
    assert decision.sent is not None and decision.sent.arm[0] == pytest.approx(-0.2)
    assert decision.run_id == 2


def test_the_first_opening_of_a_run_is_free() -> None:
    guard = running()
    guard.accept(chunk(T0 + DT_NS, twist_rows(8, gripper=0.0), run_id=2), T0 + DT_NS)
    assert tick(guard, 1).sent.gripper == 0.0


def test_a_late_tick_gains_no_speed() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, twist_rows(8, 0.4)), T0)
    tick(guard, 0)
    guard.accept(chunk(T0 + DT_NS, twist_rows(8, -0.4)), T0 + DT_NS)
    decision = tick(guard, 4)
    assert decision.sent is not None and decision.sent.arm[0] == pytest.approx(0.0)  # 0.2 m/s less, not 0.8


def test_the_age_of_the_state_is_allowed_for_at_the_wall() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, twist_rows(8, 0.2)), T0)
    decision = tick(guard, 0, state(T0 - DT_NS, position=(0.79, 0.0, 0.3)))
    assert decision.sent is not None and decision.sent.arm[0] == pytest.approx(0.1)


def test_two_commands_for_one_instant_gain_no_speed() -> None:
    guard = Guard(twist_contract())
    guard.accept(chunk(T0, twist_rows(8, 0.4)), T0)
    first, second = tick(guard, 0), tick(guard, 0)
    assert first.sent is not None and second.sent is not None
    assert np.array_equal(first.sent.arm, second.sent.arm)


def test_the_same_inputs_give_the_same_bits() -> None:
    generator = np.random.default_rng(5)
    rows = generator.normal(0.0, 0.02, (20, 7))
    positions = np.array(CENTRE) + generator.normal(0.0, 0.1, (20, 3))

    def play() -> bytes:
        guard = Guard(twist_contract())
        guard.accept(chunk(T0, rows, execute_rows=20), T0)
        sent = [tick(guard, k, state(T0 + k * DT_NS, position=positions[k])).sent for k in range(20)]
        return b"".join(command.arm.tobytes() for command in sent if command is not None)

    assert play() == play()
    assert len(play()) == 20 * 6 * 8


# ---- the end of a run -------------------------------------------------------------------------------------------


def test_after_a_run_the_stop_behaviour_is_sent_on_and_on() -> None:
    guard = running()
    guard.end_run(1, T0)
    for k in range(1, 20):
        decision = tick(guard, k)
        assert decision.sent is not None and decision.raw is None
        assert not decision.sent.arm.any()
        assert (decision.sent.gripper, decision.run_id) == (1.0, 0)
    assert guard.status.state is GuardState.IDLE
    assert guard.must_wait(T0)


def test_chunks_of_a_run_that_ended_are_ignored() -> None:
    guard = running()
    guard.end_run(1, T0)
    guard.accept(chunk(T0 + DT_NS, twist_rows(8, 0.1)), T0 + DT_NS)
    assert guard.ignored_chunks == 1
    assert guard.status.state is GuardState.IDLE


def test_the_end_of_another_run_ends_nothing() -> None:
    guard = running()
    guard.end_run(2, T0)
    assert guard.status.state is GuardState.ACTIVE


def test_silence_after_a_run_is_no_fault() -> None:
    guard = running()
    guard.end_run(1, T0)
    guard.watch(T0 + 100 * DT_NS, T0 + 100 * DT_NS)
    assert guard.status.state is GuardState.IDLE

"""A policy and a delay in; when it is asked, what it goes on with and what is sent, in every execution mode."""

from __future__ import annotations

import numpy as np
import pytest
from guarding import pose_contract, twist_contract
from policies import tabletop

from vla_policy.action.guard import Guard
from vla_policy.action.safety import GuardState
from vla_policy.action.schedule import Blend
from vla_policy.errors import ConfigError
from vla_policy.execution import Execution, PacedPolicy
from vla_policy.types import ActionChunk, InFlight, Observation, Pose

MS = 1_000_000
DT_MS, ROWS, EXECUTED = 50, 12, 4
CONTRACT = tabletop()


class Numbered:
    """Row k of the chunk of step n holds n + k / 100, times `scale`; remembers what it was given."""

    period_ns = EXECUTED * DT_MS * MS

    def __init__(self, continues_chunks: bool = True, scale: float = 1.0) -> None:
        self.scale = scale
        self.continues_chunks = continues_chunks
        self.action_head = "lstm"
        self.timings: dict[str, float] = {}
        self.in_flight: list[InFlight | None] = []

    def reset(self, instruction: str) -> None:
        self.in_flight.clear()

    def step(self, observation: Observation, run_id: int = 1, in_flight: InFlight | None = None) -> ActionChunk:
        self.in_flight.append(in_flight)
        values = self.scale * np.tile(len(self.in_flight) + np.arange(ROWS)[:, None] / 100, (1, 7))
        return ActionChunk(observation.stamp_ns, DT_MS * MS, values, EXECUTED, run_id)


def seen(stamp_ms: int) -> Observation:
    return Observation(stamp_ms * MS, {}, np.zeros(8), Pose(np.array([0.5, 0.0, 0.3]), np.array([0.0, 0.0, 0.0, 1.0])))


def drive(paced: PacedPolicy, delays_ms: list[int], period_ms: int = 10) -> list[tuple[int, ActionChunk]]:
    """(when it arrives [ms], chunk) of inferences that take so long, an observation every `period_ms`."""
    sent, now = [], 1000
    for delay in delays_ms:
        while not paced.is_due(now * MS):
            now += period_ms
        chunk = paced.step(seen(now))
        now += delay
        sent.append((now, paced.release(chunk, now * MS)))
    return sent


def test_a_fast_inference_keeps_the_grid_whatever_the_mode() -> None:
    for execution in (Execution.ASYNC, Execution.ENSEMBLE, Execution.RTC):
        sent = drive(PacedPolicy(Numbered(), CONTRACT, execution), [120, 30, 190, 60])
        assert [chunk.stamp_ns // MS for _, chunk in sent] == [1000, 1200, 1400, 1600]


def test_a_slow_inference_skips_ticks_and_takes_the_newest_observation() -> None:
    sent = drive(PacedPolicy(Numbered(), CONTRACT), [330, 330, 100, 100])
    assert [chunk.stamp_ns // MS for _, chunk in sent] == [1000, 1330, 1660, 1800]


def test_blocking_plays_all_rows_from_the_first_and_then_stands_still() -> None:
    paced = PacedPolicy(Numbered(), CONTRACT, Execution.BLOCKING)
    (arrived, first), (_, second) = drive(paced, [300, 300])
    assert first.stamp_ns == arrived * MS == 1300 * MS
    np.testing.assert_array_equal(first.values[:EXECUTED, 0], [1.0, 1.01, 1.02, 1.03])
    assert not first.values[EXECUTED:, :6].any() and (first.values[EXECUTED:, 6] == 1.03).all()
    assert second.stamp_ns == (1300 + 200 + 300) * MS  # it looked where the rows ended
    assert (len(first.values) - EXECUTED) * DT_MS >= 5000


def test_blocking_holds_the_last_position_of_robots_that_take_positions() -> None:
    paced = PacedPolicy(Numbered(), pose_contract(), Execution.BLOCKING)
    ((_, chunk),) = drive(paced, [100])
    np.testing.assert_array_equal(chunk.values[EXECUTED:], np.full_like(chunk.values[EXECUTED:], 1.03))


def test_real_time_chunking_gets_the_rows_left_and_how_many_will_be_gone() -> None:
    policy = Numbered()
    drive(PacedPolicy(policy, CONTRACT, Execution.RTC), [60, 120, 30, 30])
    first, second, third, fourth = policy.in_flight
    assert first is None  # nothing is under way
    np.testing.assert_allclose(second.values[:, 0], 1 + np.arange(4, ROWS) / 100)
    assert second.frozen == 2  # 60 ms are two rows of 50 ms
    assert (third.frozen, fourth.frozen) == (3, 3)  # the longest of the last delays
    np.testing.assert_allclose(third.values[:, 0], 2 + np.arange(4, ROWS) / 100)


def test_what_is_frozen_is_bounded_by_what_is_left() -> None:
    policy = Numbered()
    drive(PacedPolicy(policy, CONTRACT, Execution.RTC), [450, 450, 800])
    assert [(len(given.values), given.frozen) for given in policy.in_flight[1:]] == [(3, 3), (3, 3)]


def test_a_chunk_that_is_used_up_and_a_new_run_leave_nothing_in_flight() -> None:
    policy = Numbered()
    paced = PacedPolicy(policy, CONTRACT, Execution.RTC)
    drive(paced, [700, 100])
    assert policy.in_flight == [None, None]
    paced.release(paced.step(seen(5000), run_id=2), 5050 * MS)
    assert policy.in_flight[-1] is None
    paced.reset("another")
    paced.step(seen(5300), run_id=2)
    assert policy.in_flight == [None]


def test_where_time_waits_real_time_chunking_is_async() -> None:
    policy = Numbered()
    drive(PacedPolicy(policy, CONTRACT, Execution.RTC), [0, 0, 0])
    assert policy.in_flight == [None, None, None]


def test_a_head_that_cannot_go_on_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="got rtc, but action head 'lstm'.*async or ensemble.*flow or diffusion"):
        PacedPolicy(Numbered(continues_chunks=False), CONTRACT, Execution.RTC)
    PacedPolicy(Numbered(continues_chunks=False), CONTRACT, Execution.ENSEMBLE)


def test_the_guard_averages_in_the_ensemble_alone() -> None:
    assert [mode for mode in Execution if mode.blend is Blend.TEMPORAL_ENSEMBLE] == [Execution.ENSEMBLE]


@pytest.mark.parametrize("execution", [Execution.ASYNC, Execution.ENSEMBLE, Execution.RTC])
def test_commands_come_at_their_own_rate_whatever_the_inference_takes(execution: Execution) -> None:
    """100 commands a second, an inference of 280 ms: no tick is without its row, none stands still."""
    contract = twist_contract()
    guard, policy = Guard(contract, blend=execution.blend, silence_s=10.0), Numbered(scale=1e-4)
    arrivals = drive(PacedPolicy(policy, contract, execution), [280] * 4)
    rows = []
    for now in range(arrivals[0][0], arrivals[-1][0], 10):
        for when, chunk in arrivals:
            if now - 10 < when <= now:
                guard.accept(chunk, now * MS)
        decision = guard.command(now * MS, seen(now), now * MS)
        assert decision.status.state is not GuardState.STOPPED, decision.status.message
        rows.append(decision.row)
    assert len(rows) == 84 and min(rows) == 5


def test_steps_that_were_missed_are_made_up_for_and_not_made_twice() -> None:
    """100 ms late, rows of 50 ms: two rows are missed, in which the robot went on with rows 4 and 5 before."""
    paced = PacedPolicy(Numbered(), CONTRACT)
    (_, first), (_, second) = drive(paced, [100, 100])
    planned = 1 + np.arange(ROWS) / 100  # nothing was under way: the way of rows 0 and 1 is added to the next four
    np.testing.assert_allclose(first.values[2:6, 0], planned[2:6] + planned[:2].sum() / 4)
    np.testing.assert_allclose(np.delete(first.values[:, 0], range(2, 6)), np.delete(planned, range(2, 6)))
    went, meant = first.values[4:6, 0].sum(), 2.0 + 2.01
    np.testing.assert_allclose(second.values[2:6, 0], 2 + np.arange(2, 6) / 100 + (meant - went) / 4)
    np.testing.assert_array_equal(second.values[:, 6], 2 + np.arange(ROWS) / 100)  # the gripper is no way


@pytest.mark.parametrize("delay_ms", [40, 200, 300])
def test_less_than_a_row_and_a_period_or_more_change_nothing_and_positions_never_change(delay_ms: int) -> None:
    plain = np.tile(1 + np.arange(ROWS)[:, None] / 100, (1, 7))
    ((_, chunk),) = drive(PacedPolicy(Numbered(), CONTRACT), [delay_ms])
    np.testing.assert_array_equal(chunk.values, plain)
    ((_, chunk),) = drive(PacedPolicy(Numbered(), pose_contract()), [100])
    np.testing.assert_array_equal(chunk.values, plain)

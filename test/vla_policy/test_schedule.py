"""Chunks in by stamp; the row for now, lateness made up for, overlaps blended, out."""

from __future__ import annotations

import numpy as np
import pytest
from guarding import DT_NS, chunk, pose_contract, twist_contract

from vla_policy.action.schedule import Blend, ChunkSchedule


def numbered(count: int, start: float = 0.0) -> np.ndarray:
    """Rows (count, 7) whose every value is the row's number."""
    return np.arange(start, start + count)[:, None] * np.ones(7)


@pytest.fixture
def schedule() -> ChunkSchedule:
    return ChunkSchedule(twist_contract())


def test_nothing_came_yet(schedule: ChunkSchedule) -> None:
    assert schedule.row_at(0) is None
    assert schedule.newest is None
    assert schedule.must_wait(0)


@pytest.mark.parametrize(("late_ns", "row"), [(0, 0), (DT_NS - 1, 0), (DT_NS, 1), (3 * DT_NS + 7, 3)])
def test_the_row_is_chosen_by_the_time_since_the_observation(schedule: ChunkSchedule, late_ns: int, row: int) -> None:
    schedule.add(chunk(1_000, numbered(5)))
    scheduled = schedule.row_at(1_000 + late_ns)
    assert scheduled is not None
    assert (scheduled.row, scheduled.values[0], scheduled.stamp_ns) == (row, row, 1_000)


def test_rows_end(schedule: ChunkSchedule) -> None:
    schedule.add(chunk(0, numbered(3)))
    assert schedule.row_at(3 * DT_NS - 1) is not None
    assert schedule.row_at(3 * DT_NS) is None


def test_a_clock_slightly_behind_gets_row_0_and_one_far_behind_nothing(schedule: ChunkSchedule) -> None:
    schedule.add(chunk(10 * DT_NS, numbered(3)))
    scheduled = schedule.row_at(9 * DT_NS)
    assert scheduled is not None and scheduled.row == 0
    assert schedule.row_at(9 * DT_NS - 1) is None


def test_the_latest_chunk_wins_by_default(schedule: ChunkSchedule) -> None:
    schedule.add(chunk(0, numbered(8)))
    schedule.add(chunk(2 * DT_NS, numbered(8, start=100)))
    scheduled = schedule.row_at(3 * DT_NS)
    assert scheduled is not None
    assert (scheduled.row, scheduled.values[0]) == (1, 101)


def test_a_chunk_no_newer_than_the_newest_is_dropped_and_counted(schedule: ChunkSchedule) -> None:
    assert schedule.add(chunk(2 * DT_NS, numbered(8)))
    assert not schedule.add(chunk(DT_NS, numbered(8, start=100)))
    assert not schedule.add(chunk(2 * DT_NS, numbered(8, start=100)))
    assert schedule.dropped == 2
    scheduled = schedule.row_at(3 * DT_NS)
    assert scheduled is not None and scheduled.values[0] == 1


def test_a_new_run_replaces_the_old_even_with_an_older_stamp(schedule: ChunkSchedule) -> None:
    schedule.add(chunk(4 * DT_NS, numbered(8), run_id=1))
    assert schedule.add(chunk(DT_NS, numbered(8, start=100), run_id=2))
    scheduled = schedule.row_at(4 * DT_NS)
    assert scheduled is not None and scheduled.values[0] == 103


def test_a_newer_chunk_is_needed_after_the_rows_meant_to_be_executed(schedule: ChunkSchedule) -> None:
    schedule.add(chunk(0, numbered(8), execute_rows=4))
    assert not schedule.must_wait(4 * DT_NS - 1)
    assert schedule.must_wait(4 * DT_NS)


def test_an_instant_before_the_chunk_waits_for_its_own_state(schedule: ChunkSchedule) -> None:
    schedule.add(chunk(4 * DT_NS, numbered(8), execute_rows=4))
    assert schedule.must_wait(3 * DT_NS)  # the last state of the episode before
    assert not schedule.must_wait(4 * DT_NS)


def test_temporal_ensemble_weighs_by_age_and_keeps_the_newest_gripper() -> None:
    schedule = ChunkSchedule(twist_contract(), Blend.TEMPORAL_ENSEMBLE, decay=0.5)
    schedule.add(chunk(0, numbered(8)))
    schedule.add(chunk(2 * DT_NS, numbered(8, start=100)))
    scheduled = schedule.row_at(3 * DT_NS)
    assert scheduled is not None
    older, newer = np.exp(-0.5 * 3), np.exp(-0.5 * 1)
    expected = (older * 3 + newer * 101) / (older + newer)
    np.testing.assert_allclose(scheduled.values[:6], expected)
    assert scheduled.values[6] == 101
    assert (scheduled.row, scheduled.stamp_ns) == (1, 2 * DT_NS)


def test_temporal_ensemble_leaves_exhausted_chunks_out_and_starts_afresh_with_a_run() -> None:
    schedule = ChunkSchedule(twist_contract(), Blend.TEMPORAL_ENSEMBLE)
    schedule.add(chunk(0, numbered(3)))
    schedule.add(chunk(2 * DT_NS, numbered(8, start=100)))
    scheduled = schedule.row_at(3 * DT_NS)
    assert scheduled is not None and scheduled.values[0] == 101
    schedule.add(chunk(3 * DT_NS, numbered(8, start=200), run_id=2))
    scheduled = schedule.row_at(4 * DT_NS)
    assert scheduled is not None and scheduled.values[0] == 201


def test_temporal_ensemble_averages_rotations_as_rotations() -> None:
    schedule = ChunkSchedule(pose_contract(), Blend.TEMPORAL_ENSEMBLE, decay=0.0)
    rows = np.zeros((4, 7))
    rows[:, 5] = 3.1
    schedule.add(chunk(0, rows))
    rows[:, 5] = -3.1
    schedule.add(chunk(DT_NS, rows))
    scheduled = schedule.row_at(DT_NS)
    assert scheduled is not None
    assert abs(np.linalg.norm(scheduled.values[3:6]) - np.pi) < 1e-9

"""Action chunks in, the row for now out: chosen by stamp, so the time that inference took is made up for.

Row k of a chunk is meant for `stamp + k * dt`; rows whose time has passed when the chunk arrives are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import mean_rotvec
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.types import ActionChunk

ENSEMBLE_DECAY = 0.1  # per row of age; in ACT the oldest chunk weighs most, here the newest does


class Blend(StrEnum):
    """What is done where chunks overlap."""

    LATEST = "latest"  # the newest chunk alone
    TEMPORAL_ENSEMBLE = "temporal_ensemble"  # mean of all, weighed exp(-decay * age); gripper by the newest


@dataclass(frozen=True, slots=True)
class ScheduledRow:
    """The row for an instant. values: float64 (A,), contract units. stamp_ns and row: of the newest chunk."""

    values: NDArray[np.float64]
    stamp_ns: int
    row: int


class ChunkSchedule:
    """The chunks of one run, newest last. `dropped` counts chunks that were no newer than one already here.

    Ensemble: Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (2023).
    """

    def __init__(self, contract: RobotContract, blend: Blend = Blend.LATEST,
                 decay: float = ENSEMBLE_DECAY) -> None:
        self._rotations = contract.action.kind is ActionKind.EE_POSE
        self._gripper = contract.action.gripper is not None
        self._blend = blend
        self._decay = decay
        self._chunks: list[ActionChunk] = []
        self.dropped = 0

    @property
    def newest(self) -> ActionChunk | None:
        """The chunk computed from the latest observation."""
        return self._chunks[-1] if self._chunks else None

    def add(self, chunk: ActionChunk) -> bool:
        """Take a chunk; one of another run replaces all. False: dropped, no newer than the newest."""
        newest = self.newest
        if newest is not None and newest.run_id == chunk.run_id:
            if chunk.stamp_ns <= newest.stamp_ns:
                self.dropped += 1
                return False
        else:
            self._chunks.clear()
        if self._blend is Blend.LATEST:
            self._chunks.clear()
        self._chunks.append(chunk)
        return True

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()

    def must_wait(self, now_ns: int) -> bool:
        """Whether a command for `now_ns` is early: the policy means to send a newer chunk first, or the chunk that
        came is for a later instant, whose state is still on its way.
        """
        newest = self.newest
        if newest is None:
            return True
        return not newest.stamp_ns <= now_ns < newest.stamp_ns + newest.execute_rows * newest.dt_ns

    def row_at(self, now_ns: int) -> ScheduledRow | None:
        """The row for `now_ns`; None when the newest chunk has none: exhausted, or in the future."""
        newest = self.newest
        if newest is None:
            return None
        row = _row_index(newest, now_ns)
        if row is None:
            return None
        # A chunk without a row for now will never have one again: its rows only move further into the past.
        self._chunks = [chunk for chunk in self._chunks if _row_index(chunk, now_ns) is not None]
        values = newest.values[row] if len(self._chunks) == 1 else self._ensemble(now_ns)
        return ScheduledRow(values.astype(np.float64), newest.stamp_ns, row)

    def _ensemble(self, now_ns: int) -> NDArray[np.float64]:
        ages = np.array([_row_index(chunk, now_ns) for chunk in self._chunks], dtype=np.float64)
        rows = np.array([chunk.values[int(age)] for chunk, age in zip(self._chunks, ages, strict=True)])
        weights = np.exp(-self._decay * (ages - ages[-1]))
        weights /= weights.sum()
        values = weights @ rows
        if self._rotations:
            values[3:6] = mean_rotvec(rows[:, 3:6], weights)
        if self._gripper:
            values[-1] = rows[-1, -1]  # half of open and closed is neither
        return values


def _row_index(chunk: ActionChunk, now_ns: int) -> int | None:
    """Index of the row for now. Clocks of two machines differ: up to one dt before the stamp is row 0."""
    row = (now_ns - chunk.stamp_ns) // chunk.dt_ns
    return max(row, 0) if -1 <= row < len(chunk.values) else None

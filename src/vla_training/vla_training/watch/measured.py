"""What was measured of a policy beside its losses: records of the open and the closed loop, and their files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_training.watch.facts import read_json


def mean_of_known(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean over `axis` of what is no NaN; NaN where nothing is known."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True, slots=True)
class DrawnEpisode:
    """One episode to look at, in contract units.

    recorded_NA, executed_NA: float64, a row every `row_s`: what was recorded, and what the policy would have executed.
    chunks_CKA: all that it put out, chunk c beginning at row `starts[c]`.
    """

    key: str
    instruction: str
    row_s: float
    recorded_NA: NDArray[np.float64]
    executed_NA: NDArray[np.float64]
    starts: NDArray[np.int64]
    chunks_CKA: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OpenLoopResult:
    """How far the actions of a policy lie from recorded ones, in contract units.

    names, units: of the A dimensions. error_KA: mean absolute error of row k of a chunk, NaN where no row k
    was recorded. spread_A: standard deviation of the recorded actions; a policy that always says their mean has an
    error near it. execute_rows: rows of a chunk that are executed. episodes, chunks: how many were compared.
    step_ms_C: wall time of each step of the policy, not kept in files.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    error_KA: NDArray[np.float64]
    spread_A: NDArray[np.float64]
    execute_rows: int
    episodes: int
    chunks: int
    drawn: tuple[DrawnEpisode, ...] = ()
    step_ms_C: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def error_A(self) -> NDArray[np.float64]:
        """Mean absolute error of the rows that are executed, by dimension."""
        return mean_of_known(self.error_KA[: self.execute_rows], axis=0)

    @property
    def relative_KA(self) -> NDArray[np.float64]:
        """`error_KA` as a share of the spread; NaN for a dimension that never changes."""
        spread_A = np.where(self.spread_A > 0, self.spread_A, np.nan)
        return self.error_KA / spread_A

    def scalars(self) -> dict[str, float]:
        """Values for curves: errors by dimension, in its unit and relative to its spread; the mean of each row."""
        relative_A = mean_of_known(self.relative_KA[: self.execute_rows], axis=0)
        rows_K = mean_of_known(self.relative_KA, axis=1)
        values = {f"open_loop/error/{name}": value for name, value in zip(self.names, self.error_A, strict=True)}
        values |= {f"open_loop/relative/{name}": value for name, value in zip(self.names, relative_A, strict=True)}
        values |= {f"open_loop/row/{row}": value for row, value in enumerate(rows_K)}
        values["open_loop/relative_error"] = mean_of_known(relative_A, axis=0)
        return {name: float(value) for name, value in values.items() if np.isfinite(value)}


DRAWN_ARRAYS = ("recorded_NA", "executed_NA", "starts", "chunks_CKA")


def save_open_loop(path: Path, result: OpenLoopResult) -> None:
    """Write a result to an npz file, replacing an older one."""
    arrays: dict[str, Any] = {
        name: np.asarray(getattr(result, name))
        for name in ("names", "units", "error_KA", "spread_A", "execute_rows", "episodes", "chunks")
    }
    arrays["drawn"] = np.array([(one.key, one.instruction, str(one.row_s)) for one in result.drawn]).reshape(-1, 3)
    for number, one in enumerate(result.drawn):
        arrays |= {f"{name}/{number}": getattr(one, name) for name in DRAWN_ARRAYS}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".partial")
    with fresh.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(fresh, path)


def load_open_loop(path: Path) -> OpenLoopResult | None:
    """What `save_open_loop` wrote, None where there is no file."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as found:
        drawn = tuple(
            DrawnEpisode(str(key), str(text), float(row_s), *(found[f"{name}/{number}"] for name in DRAWN_ARRAYS))
            for number, (key, text, row_s) in enumerate(found["drawn"])
        )
        names, units = (tuple(str(word) for word in found[name]) for name in ("names", "units"))
        counts = (int(found[name]) for name in ("execute_rows", "episodes", "chunks"))
        return OpenLoopResult(names, units, found["error_KA"], found["spread_A"], *counts, drawn)


@dataclass(frozen=True, slots=True)
class ClosedLoopResult:
    """Success in a simulator. tasks: name -> (successes, episodes)."""

    step: int
    sim: str
    success_rate: float
    interval_95: tuple[float, float]
    episodes: int
    tasks: Mapping[str, tuple[int, int]]

    @classmethod
    def read(cls, step: int, sim: str, summary: Path) -> ClosedLoopResult:
        """From the summary.json that `evaluate` writes."""
        found: dict[str, Any] = read_json(summary)
        tasks = {row["task"]: (row["successes"], row["episodes"]) for row in found["tasks"]}
        return cls(step, sim, found["success_rate"], tuple(found["interval_95"]), found["episodes"], tasks)

    def scalars(self) -> dict[str, float]:
        """Values for curves: success of all episodes and of each task."""
        tasks = {f"closed_loop/{task}": good / count for task, (good, count) in self.tasks.items()}
        return {"closed_loop/success": self.success_rate} | tasks

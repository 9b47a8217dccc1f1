"""Step reports in, points of curves out: the values of a run over its steps, kept in one CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vla_policy.errors import DataError
from vla_training.training.report import StepReport
from vla_training.watch.memory import memory_gib

COLUMNS = ("step", "minutes", "name", "value")


@dataclass(frozen=True, slots=True)
class Point:
    """Values at one step, named by paths: `loss/pose`, `speed/samples_per_s`. minutes: of training, all resumes."""

    step: int
    minutes: float
    values: Mapping[str, float]


class PointObserver(Protocol):
    """Whoever keeps or shows the points of a run: a file, TensorBoard, Weights & Biases."""

    def add(self, point: Point) -> None:
        """Take one point; the steps never fall."""

    def close(self) -> None:
        """Write what is still held back; nothing comes after it."""


class Averager:
    """Means over `every` steps."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._clear()

    def add(self, report: StepReport) -> Point | None:
        """Take a step in; the point it completes comes out, none for most steps."""
        self._count += 1
        self._samples += report.samples
        self._seconds += report.seconds
        self._waited_s += report.seconds * report.wait_share
        for name, value in _values(report):
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        return self.take(report.step, report.minutes) if self._count == self._every else None

    def spent(self, seconds: float) -> None:
        """Note time that watching took, beside the steps."""
        self._watched_s += seconds

    def take(self, step: int, minutes: float) -> Point:
        """The mean of what came since the last point; empty where nothing did."""
        values = {name: total / count for name, (total, count) in self._sums.items()}
        if self._seconds > 0:
            values["speed/samples_per_s"] = self._samples / self._seconds
            values["speed/data_wait_share"] = self._waited_s / self._seconds
            values["speed/watch_share"] = self._watched_s / self._seconds
        if values:
            values |= {f"memory/{name}_gib": size for name, size in memory_gib().items()}
        self._clear()
        return Point(step, minutes, values)

    def _clear(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}
        self._count = self._samples = 0
        self._seconds = self._waited_s = self._watched_s = 0.0


def _values(report: StepReport) -> Iterator[tuple[str, float]]:
    for name, value in report.losses.items():
        yield f"loss/{name}", value
    yield "learning_rate", report.learning_rate
    yield "gradient_norm", report.gradient_norm


class PointFile:
    """PointObserver: appends every value to a CSV file, one row a value, so that a run's curves outlive it."""

    def __init__(self, path: Path, resumed_step: int = 0) -> None:
        """resumed_step: 0 begins a new file; otherwise what an earlier try wrote of later steps is dropped."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [point for point in read_points(path) if point.step <= resumed_step] if resumed_step else []
        fresh = path.with_suffix(".partial")
        with fresh.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(COLUMNS)
            _write(file, kept)
        os.replace(fresh, path)

    def add(self, point: Point) -> None:
        """Append the values of a point."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            _write(file, [point])

    def close(self) -> None:
        """Nothing is held back."""


def _write(file: object, points: list[Point]) -> None:
    writer = csv.writer(file)
    for point in points:
        writer.writerows(
            (point.step, f"{point.minutes:.3f}", name, f"{value:.7g}") for name, value in point.values.items()
        )


def read_points(path: Path) -> list[Point]:
    """The points in a file of `PointFile`, none where there is no file. Raises: DataError for another file."""
    if not path.is_file():
        return []
    points: dict[tuple[int, float], dict[str, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != COLUMNS:
            raise DataError(f"{path}: expected a CSV file with the columns {', '.join(COLUMNS)}; delete or move it")
        for number, row in enumerate(rows, start=2):
            try:
                step, minutes, name, value = row
                points.setdefault((int(step), float(minutes)), {})[name] = float(value)
            except ValueError:
                raise DataError(f"{path}, line {number}: got {row}, expected step, minutes, name, value; "
                                "delete that line") from None
    return [Point(step, minutes, values) for (step, minutes), values in points.items()]


def curve(points: list[Point], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name."""
    found = [(point.step, point.values[name]) for point in points if name in point.values]
    return [step for step, _ in found], [value for _, value in found]

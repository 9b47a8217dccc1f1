"""The numbers of one column in, episode by episode; how they are spread and what is odd about them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEPT_ROWS = 200_000  # of a column, drawn evenly from all: enough for percentiles and histograms
FAR = 3.0  # an outlier lies further than this many times the 1st-to-99th percentile range beyond it


@dataclass(frozen=True, slots=True)
class Extreme:
    """A value, and where it stands."""

    value: float
    episode: str
    frame: int


class ColumnTally:
    """What is kept of a column with D dimensions, however long the data set is."""

    def __init__(self, name: str, dimensions: Sequence[str], seed: int = 0) -> None:
        self.name, self.dimensions = name, tuple(dimensions)
        self.rows = 0
        self.not_finite: list[Extreme] = []  # the first of each episode
        self.not_finite_rows = 0
        size = len(self.dimensions)
        self.low: list[Extreme | None] = [None] * size
        self.high: list[Extreme | None] = [None] * size
        self._share = 1.0
        self._kept: list[NDArray[np.float64]] = []
        self._kept_rows = 0
        self._rng = np.random.default_rng(seed)

    def add(self, values_TD: NDArray[np.float64], episode: str, rows_per_frame: int = 1) -> None:
        """Take the rows of an episode in. rows_per_frame: rows that stand for one frame."""
        self.rows += len(values_TD)
        finite_T = np.isfinite(values_TD).all(axis=1)
        if not finite_T.all():
            row = int(np.argmin(finite_T))
            column = int(np.argmin(np.isfinite(values_TD[row])))
            self.not_finite.append(Extreme(float(values_TD[row, column]), episode, row // rows_per_frame))
            self.not_finite_rows += int((~finite_T).sum())
        self._note_extremes(values_TD, episode, rows_per_frame)
        self._keep(values_TD[finite_T])

    def sample(self) -> NDArray[np.float64]:
        """Finite rows (n, D), all of them or an even draw."""
        return np.concatenate(self._kept) if self._kept else np.empty((0, len(self.dimensions)))

    def constant(self) -> list[str]:
        """Dimensions with one value in the whole data set."""
        pairs = zip(self.dimensions, self.low, self.high, strict=True)
        return [name for name, low, high in pairs if low is not None and low.value == high.value]

    def outliers(self) -> Iterator[tuple[str, Extreme]]:
        """The furthest value of each dimension, on each side, that lies FAR out; not for those with few values."""
        sample = self.sample()
        if not len(sample):
            return
        first, last = np.percentile(sample, (1, 99), axis=0)
        reach = FAR * (last - first)
        for column, name in enumerate(self.dimensions):
            low, high = self.low[column], self.high[column]
            if reach[column] == 0 or low is None:
                continue
            if low.value < first[column] - reach[column]:
                yield name, low
            if high.value > last[column] + reach[column]:
                yield name, high

    def _note_extremes(self, values_TD: NDArray[np.float64], episode: str, rows_per_frame: int) -> None:
        for column, values in enumerate(values_TD.T):
            if not np.isfinite(values).any():
                continue
            least = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
            most = int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))
            low, high = self.low[column], self.high[column]
            if low is None or values[least] < low.value:
                self.low[column] = Extreme(float(values[least]), episode, least // rows_per_frame)
            if high is None or values[most] > high.value:
                self.high[column] = Extreme(float(values[most]), episode, most // rows_per_frame)

    def _keep(self, values_TD: NDArray[np.float64]) -> None:
        """Each row is kept with the same chance, which halves whenever too many have been kept."""
        chosen = values_TD[self._rng.random(len(values_TD)) < self._share]
        self._kept.append(chosen)
        self._kept_rows += len(chosen)
        while self._kept_rows > KEPT_ROWS:
            self._share /= 2
            self._kept = [rows[self._rng.random(len(rows)) < 0.5] for rows in self._kept]
            self._kept_rows = sum(len(rows) for rows in self._kept)

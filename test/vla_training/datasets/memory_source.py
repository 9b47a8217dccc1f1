"""Arrays in, a data set that lies in memory out: what the tests of mapping, windows and loading share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_training.datasets.source import Column, EpisodeInfo, SourceSpec

SIZE = 16


class MemorySource:
    """An `EpisodeSource` over arrays. `asked` notes which frames were decoded."""

    def __init__(
        self,
        root: Path,
        episodes: Sequence[tuple[EpisodeInfo, Mapping[str, NDArray[Any]]]],
        rate_hz: float | None = 5.0,
        cameras: Sequence[str] = ("static", "wrist"),
        names: Mapping[str, tuple[str, ...]] | None = None,
        format: str = "memory",
        fingerprint: str = "0123456789abcdef",
    ) -> None:
        self.root = root
        self.episodes = [info for info, _ in episodes]
        self._columns = [dict(columns) for _, columns in episodes]
        names = names or {}
        columns = {
            name: Column(str(values.dtype), values.shape[1:], names.get(name))
            for name, values in self._columns[0].items()
        }
        self.spec = SourceSpec(format, rate_hz, dict.fromkeys(cameras, (SIZE, SIZE)), columns, fingerprint)
        self.asked: list[list[int]] = []

    def columns(self, episode: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        return {name: self._columns[episode][name] for name in names or self._columns[episode]}

    def images(self, episode: int, camera: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Every image says which frame, episode and camera it is of, in red, green and blue."""
        self.asked.append(list(map(int, frames)))
        views = list(self.spec.cameras)
        out = np.empty((len(frames), SIZE, SIZE, 3), np.uint8)
        out[:] = np.array([[frame, 10 * episode, 100 * views.index(camera)] for frame in frames])[:, None, None]
        return out

"""What a data set on disk offers, whatever its format: episodes, their small columns, and single images.

Readers are `lerobot`, `calvin`, `rlds` and `recorded`. They know nothing of robots, contracts or models: names,
shapes and units are those that were published. They are sent to worker processes, so they pickle and open their files
late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EpisodeInfo:
    """One episode, known without reading it.

    key: how an error names it (a file and an episode number). length: frames. instructions: the sentences that fit
    it, none where the data has no language. task: a short name, or the empty string. extra: what else was published
    of it (a seed, an outcome).
    """

    key: str
    length: int
    instructions: tuple[str, ...]
    task: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """A small column: dtype as numpy names it, shape of one frame, names along the last axis where they were
    published.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What all episodes of a data set have in common.

    format: name of the reader. rate_hz: frames a second, None where it was not published. cameras: published name ->
    (height, width) [px], with 0 where it is known only after decoding. columns: published name -> Column.
    fingerprint: hex digest that changes with the files.
    recorded_with: what the data tells of its robot contract, as `mapping.described` words it; None where it tells
    nothing.
    """

    format: str
    rate_hz: float | None
    cameras: Mapping[str, tuple[int, int]]
    columns: Mapping[str, Column]
    fingerprint: str
    recorded_with: Mapping[str, str] | None = None


class EpisodeSource(Protocol):
    """A data set on disk. Raises everywhere: DataError naming file and episode, for what is missing, truncated or
    corrupt.
    """

    root: Path
    spec: SourceSpec
    episodes: Sequence[EpisodeInfo]

    def columns(self, episode: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Small columns of a whole episode, (T, …) each; all of them where `names` is None."""

    def images(self, episode: int, camera: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Only these frames of the episode, in the order asked, repeats allowed: uint8 (n, H, W, 3), RGB."""

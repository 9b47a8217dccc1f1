"""A data set in, a Survey out: counts, rates, gaps, how the numbers are spread, and what is odd, each with its place.

Episodes are read one after the other and forgotten; of the numbers only a bounded sample is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.errors import DataError
from vla_policy.types import NS_PER_S
from vla_training.datasets.source import Column, EpisodeSource, SourceSpec
from vla_training.inspection.columns import ColumnTally

STAMPS = ("timestamp", "timestamps", "stamp", "stamp_ns", "timestamp_ns", "time")  # last part of a column's name
COUNTERS = ("frame_index", "episode_index", "index", "task_index", "asof")  # say where a frame is, not what it is
HELD = "held"  # last part of the name of a column that marks frames which repeat the one before, as none came
WIDEST = 64  # numbers of a frame; wider columns are embeddings and the like, which no person reads
GAP = 1.5  # periods between two frames from which on one is missing
RATE_SLACK = 0.02  # that the measured rate may lie off the published one
MISTAKES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames missing behind frame `frame` of an episode, by its timestamps or because the frame is repeated there."""

    episode: str
    frame: int
    missing: int


@dataclass(slots=True)
class Survey:
    """What was seen of a data set.

    episodes, frames, lengths, tasks, sentences: of all episodes. read: episodes whose columns were read, to which all
    that follows refers. rates_hz: of each, by its timestamps; empty where there are none. faults: what is broken.
    """

    spec: SourceSpec
    episodes: int
    frames: int
    lengths: NDArray[np.int64]
    tasks: Counter[str]
    sentences: Counter[str]
    read: int = 0
    rates_hz: list[float] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    columns: dict[str, ColumnTally] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def dropped_frames(self) -> int:
        """Frames missing in all gaps."""
        return sum(gap.missing for gap in self.gaps)

    @property
    def actions(self) -> list[ColumnTally]:
        """The columns that hold actions, by their names."""
        return [tally for name, tally in self.columns.items() if is_action(name)]

    def findings(self) -> Iterator[str]:
        """What is odd, one sentence each; nothing for a data set without a fault."""
        yield from _first(self.faults, "more faults")
        yield from self._about_frames()
        for name, tally in self.columns.items():
            if tally.not_finite:
                first = tally.not_finite[0]
                yield (f"{name}: {tally.not_finite_rows} rows in {len(tally.not_finite)} episodes are not finite, "
                       f"first {first.value} at {first.episode}, frame {first.frame}")
            constant = tally.constant()
            if constant and self.spec.columns[name].dtype != "bool":  # a mark that is never set is no fault
                yield f"{name}: {', '.join(constant)} never changes"
            for dimension, extreme in tally.outliers():
                yield (f"{name}: {dimension} is {extreme.value:.4g} at {extreme.episode}, frame {extreme.frame}, far "
                       "outside of its 1st to 99th percentile")

    def _about_frames(self) -> Iterator[str]:
        if self.gaps:
            worst = max(self.gaps, key=lambda gap: gap.missing)
            yield (f"frames: {self.dropped_frames} are missing in {len(self.gaps)} gaps, the longest, of "
                   f"{worst.missing}, behind {worst.episode}, frame {worst.frame}")
        if self.rates_hz and self.spec.rate_hz:
            measured = float(np.median(self.rates_hz))
            if abs(measured - self.spec.rate_hz) > RATE_SLACK * self.spec.rate_hz:
                yield f"rate: {self.spec.rate_hz:g} Hz was published, {measured:.4g} Hz is what the timestamps say"
        unsaid = sum(count for text, count in self.sentences.items() if not text.strip())
        if unsaid:
            yield f"language: {unsaid} episodes without a sentence"
        if (self.lengths <= 1).any():
            yield f"lengths: {int((self.lengths <= 1).sum())} episodes have one frame or none"


def survey(source: EpisodeSource, most: int | None = None, on_episode: Callable[[], None] = lambda: None) -> Survey:
    """Read a data set and judge it.

    most: episodes to read, spread evenly; all where None. on_episode: called after each. An episode that cannot be
    read is noted among the faults.
    """
    infos = source.episodes
    found = Survey(
        source.spec,
        len(infos),
        sum(info.length for info in infos),
        np.array([info.length for info in infos], np.int64),
        Counter(info.task or (info.instructions[0] if info.instructions else "(no task)") for info in infos),
        Counter(text for info in infos for text in info.instructions or ("",)),
    )
    wanted = [name for name, column in source.spec.columns.items() if _is_read(column)]
    for episode in chosen_episodes(len(infos), most):
        try:
            columns = source.columns(episode, wanted)
        except DataError as problem:
            found.faults.append(str(problem))
        else:
            _take(found, columns, infos[episode].key)
        on_episode()
    return found


def chosen_episodes(count: int, most: int | None) -> list[int]:
    """At most `most` episode numbers of `count`, spread evenly, the first and the last among them."""
    if most is None or count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, most)})


def is_action(name: str) -> bool:
    """Whether a column holds actions, by what data sets call them: action, rel_actions, action/world_vector, …"""
    return any(word in ("action", "actions") for word in name.lower().replace("/", "_").replace(".", "_").split("_"))


def _is_read(column: Column) -> bool:
    numbers = np.prod(column.shape, dtype=np.int64)
    return column.dtype not in ("str", "string", "object", "bytes") and numbers <= WIDEST


def last_word(name: str) -> str:
    """The end of a name that is a path: `static` of observation.images.static."""
    return name.replace(".", "/").rsplit("/", 1)[-1]


def _take(found: Survey, columns: Mapping[str, NDArray[Any]], key: str) -> None:
    found.read += 1
    stamps = next((values for name, values in columns.items() if last_word(name) in STAMPS), None)
    if stamps is not None:
        _take_stamps(found, np.asarray(stamps), key)
    held = next((values for name, values in columns.items() if last_word(name) == HELD), None)
    if held is not None:
        found.gaps += _repeated(np.asarray(held, np.bool_).reshape(len(held)), key)  # LeRobot stores (T, 1)
    for name, values in columns.items():
        if last_word(name) in (*STAMPS, *COUNTERS, HELD) or values.dtype.kind not in "fiub" or not len(values):
            continue
        size = values.shape[-1] if values.ndim > 1 else 1
        rows = np.asarray(values, np.float64).reshape(-1, size)
        if name not in found.columns:
            found.columns[name] = ColumnTally(name, _dimensions(found.spec.columns[name], size))
        found.columns[name].add(rows, key, max(1, len(rows) // len(values)))


def _dimensions(column: Column, size: int) -> tuple[str, ...]:
    if column.names is not None and len(column.names) == size:
        return tuple(column.names)
    return tuple(f"[{number}]" for number in range(size)) if size > 1 else ("value",)


def _take_stamps(found: Survey, stamps: NDArray[Any], key: str) -> None:
    """Rate and gaps of an episode. Whole numbers are nanoseconds, others seconds."""
    stamps = stamps.reshape(len(stamps), -1)[:, 0]
    if stamps.dtype.kind == "u":
        stamps = stamps.astype(np.int64)  # unsigned ones would wrap where time goes back
    seconds = (stamps - stamps[:1]) / (NS_PER_S if stamps.dtype.kind in "iu" else 1.0)
    steps = np.diff(seconds.astype(np.float64))
    if not len(steps):
        return
    backwards = np.flatnonzero(~(steps > 0))
    if len(backwards):
        found.faults.append(f"{key}: its timestamps do not grow at frame {backwards[0] + 1}")
        return
    period_s = float(np.median(steps))
    found.rates_hz.append(1.0 / period_s)
    for frame in np.flatnonzero(steps > GAP * period_s):
        found.gaps.append(Gap(key, int(frame), round(steps[frame] / period_s) - 1))


def _repeated(held: NDArray[np.bool_], key: str) -> list[Gap]:
    """Runs of frames that repeat the one before them."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]])))
    return [Gap(key, int(start) - 1, int(stop - start)) for start, stop in edges.reshape(-1, 2)]


def _first(lines: list[str], what: str) -> Iterator[str]:
    yield from lines[:MISTAKES_SHOWN]
    if len(lines) > MISTAKES_SHOWN:
        yield f"… and {len(lines) - MISTAKES_SHOWN} {what}"

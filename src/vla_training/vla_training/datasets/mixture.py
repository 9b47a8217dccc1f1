"""Prepared sources in, which of their episodes are trained on, which validate, and how often each is drawn, out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_policy.errors import ConfigError
from vla_training.datasets.prepared import PreparedSource


def held_out(sources: Sequence[PreparedSource], share: float, seed: int) -> list[NDArray[np.bool_]]:
    """For each source, which of its chosen episodes validate, (E,): the same ones of a data set, whatever was chosen
    of it.

    So no episode of a data set that is named twice is on both sides, nor are episodes cut from one recording, which
    may overlap.
    Raises: ConfigError where a side would be empty.
    """
    chosen = []
    for source in sources:
        group = _recorded_together(source)
        count = group.max() + 1
        order = np.random.default_rng([seed, int(source.data.spec.fingerprint[:8], 16)]).permutation(count)
        held = order[: max(round(share * count), 1 if share and count > 1 else 0)]
        chosen.append(np.isin(group[source.episodes], held))
    total, all_held = sum(map(len, chosen)), sum(int(side.sum()) for side in chosen)
    if all_held == total or (share and not all_held):
        empty = "train on" if all_held == total else "validate with"
        raise ConfigError(
            f"validation_share {share:g} of {total} episodes leaves none to {empty}; set it to "
            f"{'a smaller share' if all_held else '0, or a larger share'}"
        )
    return chosen


class Mixture:
    """Which (source, episode) a window comes from: each frame as often as its source's weight says."""

    def __init__(self, sources: Sequence[PreparedSource], chosen: Sequence[NDArray[np.bool_]]) -> None:
        """chosen: of each source, the episodes (E,) that may be drawn."""
        parts = [np.flatnonzero(side) for side in chosen]
        self.source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        self.episode = np.concatenate(parts)
        self.frames = np.concatenate([source.length_E[part] for source, part in zip(sources, parts, strict=True)])
        weights = np.array([source.source.weight for source in sources])[self.source] * self.frames
        self._until = np.cumsum(weights) / weights.sum()
        self.shares = np.bincount(self.source, weights, len(parts)) / weights.sum()

    def __len__(self) -> int:
        return len(self.episode)

    def draw(self, chance: float) -> tuple[int, int]:
        """A source and a chosen episode of it. chance: evenly drawn from [0, 1)."""
        place = min(int(self._until.searchsorted(chance, "right")), len(self) - 1)
        return int(self.source[place]), int(self.episode[place])


def _recorded_together(source: PreparedSource) -> NDArray[np.int64]:
    """For each episode of the data set the number of the recording it was cut from; its own where it is one."""
    names = [info.extra.get("play_episode", f"episode {number}") for number, info in enumerate(source.data.episodes)]
    known: dict[object, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])

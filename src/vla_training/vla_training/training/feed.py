"""A step number in, this process' micro batches of that step out: which windows, drawn by the seed and nothing else.

Slots 0 … batch_size - 1 of a step make one batch whatever the number of processes and micro batches; each takes a
block of them. A resumed run therefore sees exactly what an uninterrupted one would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from vla_training.config import Stage
from vla_training.datasets.loader import window_loader
from vla_training.datasets.windows import Draw, WindowSet
from vla_training.tabletop.grounding import Scenes, scene_batch
from vla_training.training.objective import MicroBatch, Pointing

SCENES = 1  # after step and slot in a scene's seed, so that scenes and windows do not share one
VALIDATION_WINDOWS = 256
VALIDATION_BATCH = 32


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of a batch is this process': the `process`-th of `processes`, in `pieces` micro batches."""

    process: int
    processes: int
    pieces: int

    def slots(self, batch_size: int, piece: int) -> range:
        """The slots of a micro batch."""
        size = batch_size // (self.processes * self.pieces)
        first = (self.process * self.pieces + piece) * size
        return range(first, first + size)


@dataclass(frozen=True, slots=True)
class Feed:
    """Windows, and scenes where the side task is trained, `scene_batch_size` a step."""

    windows: WindowSet
    validation: WindowSet | None
    scenes: Scenes | None
    scene_batch_size: int
    history_length: int
    share: Share
    seed: int
    workers: int
    pin_memory: bool = False

    def steps(self, first: int, stage_of: Callable[[int], Stage]) -> Iterator[list[MicroBatch]]:
        """The micro batches of step `first`, of the next, and so on without end."""
        batches = iter(window_loader(self.windows, self._draws(first, stage_of), self.workers, self.pin_memory))
        for step in count(first):
            yield [MicroBatch(next(batches), self._pointing(step, piece)) for piece in range(self.share.pieces)]

    def held_out(self) -> Iterator[MicroBatch]:
        """This process' part of the same validation windows every time, as long as the model's history; every process
        has as many.
        """
        share = math.ceil(VALIDATION_WINDOWS / self.share.processes)
        first = self.share.process * share
        draws = [Draw(0, slot, self.history_length) for slot in range(first, first + share)]
        pieces = [draws[start : start + VALIDATION_BATCH] for start in range(0, share, VALIDATION_BATCH)]
        return map(MicroBatch, window_loader(self.validation, pieces, self.workers))

    def _draws(self, first: int, stage_of: Callable[[int], Stage]) -> Iterator[list[Draw]]:
        for step in count(first):
            stage = stage_of(step)
            for piece in range(self.share.pieces):
                yield [Draw(step, slot, stage.window) for slot in self.share.slots(stage.batch_size, piece)]

    def _pointing(self, step: int, piece: int) -> Pointing | None:
        if self.scenes is None:
            return None
        drawn = [scene_batch(self.scenes, 1, np.random.default_rng([self.seed, step, slot, SCENES]))
                 for slot in self.share.slots(self.scene_batch_size, piece)]
        columns = zip(*((*one.inputs, one.place) for one in drawn), strict=True)
        return Pointing(*(torch.from_numpy(np.concatenate(column)) for column in columns))

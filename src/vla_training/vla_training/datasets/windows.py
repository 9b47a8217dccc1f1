"""Draws in, batches of windows out: W frames a policy period apart, each with the K action rows that follow.

What a draw gives depends on the seed, its step and its slot alone: the same window whatever the number of processes,
loader workers and resumes. Only the frames of the window are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vla_policy.action.codec import ActionCodec
from vla_policy.contract import RobotContract
from vla_policy.model.config import ModelConfig
from vla_training.datasets.batch import Batch
from vla_training.datasets.config import Augmentation
from vla_training.datasets.mixture import Mixture
from vla_training.datasets.prepared import PreparedSource
from vla_training.datasets.statistics import Normalizers
from vla_training.datasets.transforms import CHANCES, Change, change_image, draw_change

# starts drawn this far outside are moved in, so that first and last frames are seen often enough
EDGE_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Draw:
    """Which window: number `slot` of the global batch of optimizer step `step`, `window` frames long."""

    step: int
    slot: int
    window: int


@dataclass(frozen=True, slots=True)
class Window:
    """What was drawn. source, episode: which. start: its first frame. sentence: row of the texts. changes: one a
    camera, or none.
    """

    source: int
    episode: int
    start: int
    sentence: int
    changes: tuple[Change, ...]


class Scale(Protocol):
    """Positions [m, base frame] to the numbers that the model learns."""

    def apply(self, position_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """(..., 3) -> (..., 3)."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Encoded sentences. ids, mask: (N, L). rows: of each source, for each of its episodes, the rows of its
    sentences.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    rows: tuple[tuple[tuple[int, ...], ...], ...]


class WindowSet(Dataset):
    """The windows of some episodes. Indexed by draws; a list of draws gives a `Batch` at once. Pickles to worker
    processes.
    """

    def __init__(
        self,
        sources: Sequence[PreparedSource],
        mixture: Mixture,
        texts: Texts,
        normalizers: Sequence[Normalizers],
        contract: RobotContract,
        model: ModelConfig,
        seed: int,
        augmentation: Augmentation | None,
        place_scale: Scale | None,
    ) -> None:
        """normalizers: one a source. augmentation: None draws images as they are. place_scale: None gives no places."""
        self.sources, self._mixture, self._texts = list(sources), mixture, texts
        self._codecs = [ActionCodec(contract, own.action) for own in normalizers]
        self._normalizers = list(normalizers)
        self.model, self._seed, self._augmentation = model, seed, augmentation
        self._place_scale = place_scale if all(source.place for source in sources) else None

    @property
    def frames(self) -> int:
        """Frames of all its episodes."""
        return int(self._mixture.frames.sum())

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """The batch of these draws, all of the same window length. Raises: DataError where an image cannot be read."""
        windows = [self.window(draw) for draw in draws]
        length = draws[0].window
        rows = [window.sentence for window in windows]
        return Batch.of(
            self._numbers(windows, length)
            | {
                "images_BWVSS3": self._images(windows, length),
                "text_ids_BL": self._texts.ids[rows],
                "text_mask_BL": self._texts.mask[rows],
            }
        )

    def window(self, draw: Draw) -> Window:
        """Which window a draw is."""
        looks = self.model.cameras if self._augmentation is not None else ()
        chance = np.random.default_rng([self._seed, draw.step, draw.slot]).random(3 + CHANCES * len(looks))
        number, episode = self._mixture.draw(chance[0])
        source = self.sources[number]
        last = max(source.lengths[episode] - 1 - (draw.window - 1) * source.rates.stride, 0)
        edge = EDGE_FRAMES if draw.window > 1 else 0
        start = min(max(math.floor(chance[1] * (last + 2 * edge + 1)) - edge, 0), last)
        said = self._texts.rows[number][episode]
        changes = tuple(
            draw_change(self._augmentation.of(name), self.model.image_size, chance[3 + CHANCES * view :][:CHANCES])
            for view, name in enumerate(looks)
        )
        return Window(number, episode, start, said[int(chance[2] * len(said))], changes)

    def frames_of(self, window: Window, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Frames of the episode (W,), and which are real: after the episode's end the last one repeats."""
        source = self.sources[window.source]
        frames = window.start + np.arange(length) * source.rates.stride
        count = source.lengths[window.episode]
        return np.minimum(frames, count - 1), frames < count

    def read_images(self, window: Window, frames: NDArray[np.int64], view: int) -> Sequence[NDArray[np.uint8]]:
        """The frames of one camera, (S, S, 3) each, before they are changed."""
        return self.sources[window.source].window_images(window.episode, frames, view)

    def _numbers(self, windows: Sequence[Window], length: int) -> dict[str, NDArray[Any] | None]:
        """All but images and text, source by source."""
        number = np.array([window.source for window in windows])
        out: dict[str, NDArray[Any] | None] = {}
        for index in np.unique(number):
            here = np.flatnonzero(number == index)
            for name, values in self._numbers_of(index, [windows[i] for i in here], length).items():
                if len(here) == len(windows) or values is None:
                    out[name] = values
                    continue
                if name not in out:
                    out[name] = np.empty((len(windows), *values.shape[1:]), values.dtype)
                out[name][here] = values
        return out

    def _numbers_of(self, index: int, windows: Sequence[Window], length: int) -> dict[str, NDArray[Any] | None]:
        """Those of the windows of one source."""
        source, per_frame, join = (
            self.sources[index],
            self.sources[index].rates.rows_per_frame,
            self.sources[index].rates.join,
        )
        episode = [window.episode for window in windows]
        count, first = (array[episode][:, None] for array in (source.length_E, source.first))
        frames = np.array([window.start for window in windows])[:, None] + np.arange(length) * source.rates.stride
        real, frames = frames < count, np.minimum(frames, count - 1)
        rows = frames[..., None] * per_frame + np.arange(self.model.action_chunk_size) * join
        whole = (count * per_frame - join + 1)[..., None]
        within = np.minimum(rows, np.maximum(whole - 1, 0))
        arm, gripper = self._codecs[index].encode(source.rows.array[first[..., None] * per_frame + within])
        state = source.state.array[first + frames]
        normalizer = self._normalizers[index].state
        place = None if self._place_scale is None else self._place_scale.apply(source.place.array[first + frames])
        return {
            "arm_BWKA": arm,
            "gripper_BWK": gripper,
            "rows_BWK": (rows < whole) & real[..., None],
            "state_BWP": state if normalizer is None else normalizer.apply(state),
            "place_BW3": place,
        }

    def _images(self, windows: Sequence[Window], length: int) -> NDArray[np.uint8]:
        size, views = self.model.image_size, len(self.model.cameras)
        out = np.empty((len(windows), length, views, size, size, 3), np.uint8)
        for target, window in zip(out, windows, strict=True):
            frames, _ = self.frames_of(window, length)
            for view in range(views):
                images = self.read_images(window, frames, view)
                for number, image in enumerate(images):
                    if window.changes:
                        change_image(image, window.changes[view], target[number, view])
                    else:
                        target[number, view] = image
        return out

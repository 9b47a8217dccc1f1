"""Demonstrations in memory in, batches of drawn windows out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vla_policy.action.codec import ActionCodec
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.normalizer import Normalizer
from vla_training.augment import augment
from vla_training.config import TrainingConfig
from vla_training.datasets.batch import Batch
from vla_training.datasets.windows import Demonstrations, WindowIndex, draw_windows, gather_images
from vla_training.tabletop.grounding import PlaceScale


class Draw(NamedTuple):
    """Window number `slot` of the global batch of optimizer step `step`, `window` frames long."""

    step: int
    slot: int
    window: int


@dataclass(frozen=True)
class WindowSet:
    """Windows of some episodes."""

    data: Demonstrations
    arrays: dict[str, np.ndarray | None]
    episodes: np.ndarray
    chunk: int
    seed: int
    config: TrainingConfig
    augmented: bool

    @property
    def frames(self) -> int:
        """Frames in all."""
        return int((self.data.stop - self.data.first)[self.episodes].sum())

    def batch(self, draws: list[Draw]) -> Batch:
        """The windows of these draws."""
        indices, images = [], []
        for step, slot, window in draws:
            rng = np.random.default_rng([self.seed, step, slot])
            index = draw_windows(self.data, self.episodes, 1, window, self.chunk, rng)
            pixels = gather_images(self.data, index.frames)
            images.append(augment(pixels, self.config.augmentation, rng) if self.augmented else pixels)
            indices.append(index)
        index = WindowIndex(*(np.concatenate([getattr(one, name) for one in indices])
                              for name in WindowIndex.__slots__))
        text, arrays = self.data.instruction[index.episode], self.arrays
        return Batch.of({
            "images_BWVSS3": np.concatenate(images), "state_BWP": arrays["state"][index.frames],
            "text_ids_BL": arrays["ids"][text], "text_mask_BL": arrays["mask"][text],
            "arm_BWKA": arrays["arm"][index.rows],
            "gripper_BWK": None if arrays["gripper"] is None else arrays["gripper"][index.rows],
            "rows_BWK": index.rows_valid,
            "place_BW3": None if arrays["place"] is None else arrays["place"][index.frames]})


def window_sets(data: Demonstrations, model: ModelConfig, config: TrainingConfig, codec: ActionCodec,
                state: Normalizer | None, tokenizer: Tokenizer, scale: PlaceScale | None) -> tuple[WindowSet, WindowSet]:
    """Training and validation windows, in the model's units."""
    arm, gripper = codec.encode(data.actions)
    ids, mask = tokenizer.encode_batch(data.instructions, model.text_length)
    shuffled = np.random.default_rng(config.seed).permutation(len(data.first))
    held_out = round(config.validation_share * len(shuffled))
    arrays = {"state": data.state if state is None else state.apply(data.state), "ids": ids, "mask": mask, "arm": arm,
              "gripper": gripper,
              "place": None if data.place is None or scale is None else scale.apply(data.place)}
    return tuple(WindowSet(data, arrays, np.sort(part), model.action_chunk_size, config.seed, config, augmented)
                 for part, augmented in ((shuffled[held_out:], True), (shuffled[:held_out], False)))


def window_loader(windows: WindowSet, draws: Iterable[list[Draw]], workers: int = 0) -> Iterator[Batch]:
    """The batches of these draws."""
    return map(windows.batch, draws)

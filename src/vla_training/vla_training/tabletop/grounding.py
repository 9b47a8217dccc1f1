"""Generated scenes in, batches for "where is what the sentence names?" out.

A scene is one pair of camera images with the arm in some pose; many sentences fit it, each naming a place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.normalizer import Normalizer


@dataclass(frozen=True, slots=True)
class PlaceScale:
    """Positions [m, base frame] to numbers about 1: from the workspace's centre, in halves of its shortest
    side.
    """

    centre: NDArray[np.float32]
    unit_m: float

    @classmethod
    def of(cls, contract: RobotContract) -> PlaceScale:
        """The workspace of the contract. Raises: ConfigError where it has none."""
        space = contract.limits.workspace
        if space is None:
            raise ConfigError(
                f"contract {contract.name} has no limits.workspace; the grounding loss needs one"
            )
        box = np.array([space.x, space.y, space.z], np.float32)
        return cls(box.mean(1), float((box[:, 1] - box[:, 0]).min()) / 2)

    def apply(self, position_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """(…, 3) in m to those units."""
        return ((position_m - self.centre) / self.unit_m).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Scenes:
    """images: uint8 (N, V, S, S, 3). state: float32 (N, P), not normalised, or normalised by `for_model`.

    sentence: int (N, R), index into `sentences`, -1 for none. place: float32 (N, R, 3), m or units of
    `PlaceScale` likewise.
    text_ids, text_mask: of `sentences`, empty until `for_model`.
    """

    images: NDArray[np.uint8]
    state: NDArray[np.float32]
    sentence: NDArray[np.int64]
    place: NDArray[np.float32]
    sentences: tuple[str, ...]
    text_ids: NDArray[np.int64]
    text_mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def for_model(
        self, normalizer: Normalizer | None, tokenizer: Tokenizer, text_length: int, scale: PlaceScale
    ) -> Scenes:
        """The same scenes in the model's units."""
        ids, mask = tokenizer.encode_batch(self.sentences, text_length)
        return Scenes(
            self.images,
            self.state if normalizer is None else normalizer.apply(self.state),
            self.sentence,
            scale.apply(self.place),
            self.sentences,
            ids,
            mask,
        )

    def part(self, chosen: slice) -> Scenes:
        """Some of the scenes."""
        return Scenes(
            self.images[chosen],
            self.state[chosen],
            self.sentence[chosen],
            self.place[chosen],
            self.sentences,
            self.text_ids,
            self.text_mask,
        )


@dataclass(frozen=True, slots=True)
class SceneBatch:
    """inputs: images (B, V, S, S, 3), state (B, P), text ids and mask (B, L), as VLAModel.ground takes.
    place: (B, 3).
    """

    inputs: tuple[NDArray, ...]
    place: NDArray[np.float32]


def scene_batch(scenes: Scenes, size: int, rng: np.random.Generator) -> SceneBatch:
    """Draw scenes and, for each, one of the sentences that fit it."""
    chosen = rng.integers(0, len(scenes), size)
    counts = (scenes.sentence[chosen] >= 0).sum(1)
    column = np.floor(rng.random(size) * counts).astype(np.int64)
    sentence = scenes.sentence[chosen, column]
    return SceneBatch(
        (scenes.images[chosen], scenes.state[chosen], scenes.text_ids[sentence], scenes.text_mask[sentence]),
        scenes.place[chosen, column],
    )


def save_scenes(folder: Path, scenes: Scenes) -> None:
    """Write plain .npy arrays and the sentences as JSON; the images are expected in place (images.npy)."""
    for name in ("state", "sentence", "place"):
        np.save(folder / f"{name}.npy", getattr(scenes, name), allow_pickle=False)
    (folder / "sentences.json").write_text(json.dumps(scenes.sentences, indent=1), encoding="utf-8")


def load_scenes(folder: Path | str) -> Scenes:
    """Read what `save_scenes` wrote; images stay on disk. Raises: ConfigError for a folder that holds
    none.
    """
    folder = Path(folder)
    if not (folder / "sentences.json").is_file():
        raise ConfigError(f"{folder}: no scenes in it; make some with `ros2 run vla_training scenes`")
    sentences = tuple(json.loads((folder / "sentences.json").read_text(encoding="utf-8")))
    state, sentence, place = (
        np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("state", "sentence", "place")
    )
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    return Scenes(
        images, state, sentence, place, sentences, np.empty((0, 0), np.int64), np.empty((0, 0), bool)
    )

"""A folder in, two tiny RLDS data sets as tfds itself writes them out, with what tfds itself reads from them.

Needs `pip install tensorflow-cpu tensorflow-datasets` in an environment of its own:
`python make_fixtures.py ../fixtures/rlds`. The features are those of bridge_dataset 1.0.0 and fractal20220817_data
0.1.0 (https://github.com/google-deepmind/open_x_embodiment), with smaller images.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

EPISODES, STEPS = 3, (4, 5, 3)
F = tfds.features


def _frame(rng: np.random.Generator, size: tuple[int, int], step: int) -> np.ndarray:
    """A smooth picture that changes with every step: JPEG keeps it well."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    base = rng.integers(0, 200, 3)
    channels = [base[0] + 2 * step + x // 2, base[1] + y // 2, base[2] + (x + y) // 4]
    return np.stack(channels, -1).clip(0, 255).astype("u1")


def _flags(step: int, last: int) -> dict[str, Any]:
    return {"is_first": step == 0, "is_last": step == last, "is_terminal": step == last}


class BridgeDataset(tfds.core.GeneratorBasedBuilder):
    """bridge_dataset: actions as one vector, a sentence in every step, metadata beside the steps."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        image = F.Image(shape=(48, 64, 3), dtype=np.uint8, encoding_format="jpeg")
        step = {
            "observation": {
                **{f"image_{i}": image for i in range(2)},
                "state": F.Tensor(shape=(7,), dtype=np.float32),
            },
            "action": F.Tensor(shape=(7,), dtype=np.float32),
            **{name: F.Scalar(dtype=np.float32) for name in ("discount", "reward")},
            **{name: F.Scalar(dtype=np.bool_) for name in ("is_first", "is_last", "is_terminal")},
            "language_instruction": F.Text(),
            "language_embedding": F.Tensor(shape=(512,), dtype=np.float32),
        }
        metadata = {
            "file_path": F.Text(),
            "episode_id": F.Scalar(dtype=np.int32),
            **{f"has_image_{i}": F.Scalar(dtype=np.bool_) for i in range(4)},
            "has_language": F.Scalar(dtype=np.bool_),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=F.FeaturesDict({"steps": F.Dataset(step), "episode_metadata": metadata})
        )

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples(0, EPISODES), "val": self._generate_examples(EPISODES, EPISODES + 2)}

    def _generate_examples(self, start: int, stop: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for episode in range(start, stop):
            rng = np.random.default_rng(episode)
            steps = [_bridge_step(rng, step, STEPS[episode % 3] - 1, episode) for step in range(STEPS[episode % 3])]
            metadata = {"file_path": f"/nfs/raw/{episode}.npy", "episode_id": 100 + episode, "has_language": True}
            metadata.update({f"has_image_{i}": i < 2 for i in range(4)})
            yield str(episode), {"steps": steps, "episode_metadata": metadata}


def _bridge_step(rng: np.random.Generator, step: int, last: int, episode: int) -> dict[str, Any]:
    return {
        "observation": {
            "image_0": _frame(rng, (48, 64), step),
            "image_1": _frame(rng, (48, 64), step),
            "state": rng.normal(size=7).astype("f4"),
        },
        "action": rng.normal(size=7).astype("f4"),
        "discount": 1.0,
        "reward": float(step == last),
        **_flags(step, last),
        "language_instruction": f"put the spoon № {episode} on the towel",
        "language_embedding": np.full(512, episode, "f4"),
    }


class FractalData(tfds.core.GeneratorBasedBuilder):
    """fractal20220817_data: the action as a dict, the sentence inside the observation, integers below zero."""

    VERSION = tfds.core.Version("0.1.0")

    def _info(self) -> tfds.core.DatasetInfo:
        observation = {
            "image": F.Image(shape=(32, 40, 3), dtype=np.uint8, encoding_format="jpeg"),
            "natural_language_instruction": F.Text(),
            "natural_language_embedding": F.Tensor(shape=(512,), dtype=np.float32),
            "base_pose_tool_reached": F.Tensor(shape=(7,), dtype=np.float32),
            "orientation_box": F.Tensor(shape=(2, 3), dtype=np.float32),
            "gripper_closed": F.Tensor(shape=(1,), dtype=np.float32),
        }
        action = {
            "world_vector": F.Tensor(shape=(3,), dtype=np.float32),
            "rotation_delta": F.Tensor(shape=(3,), dtype=np.float32),
            "gripper_closedness_action": F.Tensor(shape=(1,), dtype=np.float32),
            "terminate_episode": F.Tensor(shape=(3,), dtype=np.int32),
        }
        step = {
            "observation": observation,
            "action": action,
            "reward": F.Scalar(dtype=np.float32),
            **{name: F.Scalar(dtype=np.bool_) for name in ("is_first", "is_last", "is_terminal")},
        }
        aspects = {"already_success": F.Scalar(dtype=np.bool_), "violation": F.Text()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=F.FeaturesDict({"steps": F.Dataset(step), "aspects": aspects})
        )

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for episode in range(EPISODES):
            rng = np.random.default_rng(10 + episode)
            steps = [_fractal_step(rng, step, STEPS[episode] - 1, episode) for step in range(STEPS[episode])]
            yield str(episode), {"steps": steps, "aspects": {"already_success": False, "violation": "none"}}


def _fractal_step(rng: np.random.Generator, step: int, last: int, episode: int) -> dict[str, Any]:
    return {
        "observation": {
            "image": _frame(rng, (32, 40), step),
            "natural_language_instruction": f"pick coke can {episode}",
            "natural_language_embedding": np.full(512, episode, "f4"),
            "base_pose_tool_reached": rng.normal(size=7).astype("f4"),
            "orientation_box": rng.normal(size=(2, 3)).astype("f4"),
            "gripper_closed": rng.random(1).astype("f4"),
        },
        "action": {
            "world_vector": rng.normal(size=3).astype("f4"),
            "rotation_delta": rng.normal(size=3).astype("f4"),
            "gripper_closedness_action": rng.random(1).astype("f4"),
            "terminate_episode": np.array([step == last, step != last, -step], "i4"),
        },
        "reward": float(step == last),
        **_flags(step, last),
    }


class OddFeatures(tfds.core.GeneratorBasedBuilder):
    """What published sets hold beside the usual: ragged lists, packed tensors, PNG, wide integers, doubles."""

    VERSION = tfds.core.Version("2.1.0")

    def _info(self) -> tfds.core.DatasetInfo:
        step = {
            "camera": F.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="png"),
            "contacts": F.Sequence(F.Scalar(dtype=np.float32)),
            "force": F.Tensor(shape=(2, 3), dtype=np.float64),
            "packed": F.Tensor(shape=(4,), dtype=np.float32, encoding="zlib"),
            "raw": F.Tensor(shape=(3,), dtype=np.int16, encoding="bytes"),
            "stamp": F.Scalar(dtype=np.int64),
        }
        features = F.FeaturesDict({"steps": F.Dataset(step), "language_instruction": F.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for episode in range(2):
            rng = np.random.default_rng(20 + episode)
            steps = [_odd_step(rng, step) for step in range(3)]
            yield str(episode), {"steps": steps, "language_instruction": f"turn {episode}"}


def _odd_step(rng: np.random.Generator, step: int) -> dict[str, Any]:
    return {
        "camera": _frame(rng, (24, 20), step),
        "contacts": rng.random(step).astype("f4"),
        "force": rng.random((2, 3)),
        "packed": rng.random(4).astype("f4"),
        "raw": rng.integers(-300, 300, 3).astype("i2"),
        "stamp": 2**40 - step if step % 2 else -step,
    }


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}/{key}" if path else key)
    else:
        yield path, value


def _column(values: list[np.ndarray]) -> np.ndarray | list[Any]:
    return np.stack(values) if len({value.shape for value in values}) == 1 else [value.tolist() for value in values]


def _plain(array: np.ndarray | list[Any]) -> Any:
    """Values for JSON; of a picture its mean per channel in every step, which a decoder hardly moves."""
    if isinstance(array, list):
        return array
    if array.dtype == np.uint8 and array.ndim == 4:
        return array.astype(float).mean((1, 2)).round(3).tolist()
    if array.dtype.kind in "OS":
        return [text.decode() for text in array.tolist()]
    if array.ndim == 2 and array.shape[1] == 512:
        return array[:, 0].tolist()
    return array.tolist()


def _read_by_tfds(folder: Path, split: str) -> tuple[list[Any], dict[str, np.ndarray]]:
    episodes, pictures = [], {}
    options = tfds.ReadConfig(interleave_cycle_length=1)
    data = tfds.builder_from_directory(folder).as_dataset(split=split, read_config=options, shuffle_files=False)
    for number, episode in enumerate(data):
        steps = [dict(_flatten(step)) for step in tfds.as_numpy(episode["steps"])]
        columns = {key: _column([np.asarray(step[key]) for step in steps]) for key in steps[0]}
        for key, array in columns.items():
            if isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 4:
                pictures[f"{split}:{number}:{key}"] = array[[0, -1]]
        rest = {key: value for key, value in episode.items() if key != "steps"}
        other = {key: _text(value.numpy()) for key, value in _flatten(rest)}
        episodes.append({"steps": {key: _plain(array) for key, array in columns.items()}, "other": other})
    return episodes, pictures


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.item()


def main() -> None:
    """Write both sets; 2 shards for `train`."""
    target = Path(sys.argv[1])
    config = tfds.download.DownloadConfig(num_shards=2)
    for kind in (BridgeDataset, FractalData, OddFeatures):
        with tempfile.TemporaryDirectory() as scratch:
            builder = kind(data_dir=scratch)
            builder.download_and_prepare(download_config=config)
            made = Path(builder.data_dir)
            folder = target / builder.name / made.name
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(made, folder)
        expected, pictures = {}, {}
        for split in builder.info.splits:
            expected[split], of_split = _read_by_tfds(folder, split)
            pictures.update(of_split)
        text = json.dumps({"tensorflow": tf.__version__, "tfds": tfds.__version__, "splits": expected})
        (folder.parent / "expected.json").write_text(text + "\n", encoding="utf-8")
        np.savez_compressed(folder.parent / "expected_images.npz", **pictures)


if __name__ == "__main__":
    main()

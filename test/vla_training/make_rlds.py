"""Numbers in, an RLDS data set out, laid out as tfds does: for tests and for measuring loaders, without TensorFlow.

`python make_rlds.py FOLDER/bridge_dataset/1.0.0 --episodes 64 --steps 60 --size 256` writes a set like Bridge.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vla_training.datasets.rlds.example import Kind
from vla_training.datasets.rlds.tfrecord import masked_crc

TFDS = "tensorflow_datasets.core.features"


def varint(number: int) -> bytes:
    """A number in base 128, the lowest digit first; negative ones in two's complement."""
    number &= 2**64 - 1
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(name: str, kind: Kind, values: bytes) -> bytes:
    """One feature of an Example."""
    return field(1, field(1, name.encode()) + field(2, field(kind, values)))


def example(features: Mapping[str, Any]) -> bytes:
    """A tf.train.Example: lists of bytes, float arrays and integer arrays by name."""
    parts = []
    for name, values in features.items():
        if isinstance(values, list):
            parts.append(feature(name, Kind.BYTES, b"".join(field(1, value) for value in values)))
        elif values.dtype.kind == "f":
            parts.append(feature(name, Kind.FLOATS, field(1, values.astype("<f4").tobytes())))
        else:
            parts.append(feature(name, Kind.INTEGERS, field(1, b"".join(varint(int(v)) for v in values.ravel()))))
    return field(1, b"".join(parts))


def write_records(path: Path, records: Sequence[bytes]) -> None:
    """A TFRecord file."""
    with path.open("wb") as file:
        for data in records:
            head = len(data).to_bytes(8, "little")
            file.write(head + masked_crc(head).to_bytes(4, "little") + data + masked_crc(data).to_bytes(4, "little"))


def write_set(
    root: Path, name: str, step: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]], shards: int
) -> None:
    """A data set with the split `train`. step: features of a step as features.json words them."""
    root.mkdir(parents=True)
    of_shard = [list(episodes[i * len(episodes) // shards : (i + 1) * len(episodes) // shards]) for i in range(shards)]
    for number, part in enumerate(of_shard):
        write_records(root / f"{name}-train.tfrecord-{number:05d}-of-{shards:05d}", [example(item) for item in part])
    split = {"name": "train", "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", "numBytes": "0",
             "shardLengths": [str(len(part)) for part in of_shard]}
    info = {"fileFormat": "tfrecord", "name": name, "version": root.name, "splits": [split]}
    (root / "dataset_info.json").write_text(json.dumps(info))
    steps = {"pythonClassName": f"{TFDS}.dataset_feature.Dataset", "sequence": {"feature": tree(step), "length": "-1"}}
    (root / "features.json").write_text(json.dumps(tree({"steps": steps})))


def tree(features: Mapping[str, Any]) -> dict[str, Any]:
    """A node of features.json with these below it."""
    return {"pythonClassName": f"{TFDS}.features_dict.FeaturesDict", "featuresDict": {"features": dict(features)}}


def image(size: int) -> dict[str, Any]:
    """A JPEG of size x size."""
    shape = {"dimensions": [str(size), str(size), "3"]}
    return {"pythonClassName": f"{TFDS}.image_feature.Image",
            "image": {"shape": shape, "dtype": "uint8", "encodingFormat": "jpeg"}}


def tensor(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    """Numbers."""
    return {"pythonClassName": f"{TFDS}.tensor_feature.Tensor",
            "tensor": {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype, "encoding": "none"}}


def text() -> dict[str, Any]:
    """A sentence."""
    return {"pythonClassName": f"{TFDS}.text_feature.Text", "text": {}}


def bridge_step(size: int, cameras: int) -> dict[str, Any]:
    """Features of a step of bridge_dataset."""
    observation = {f"image_{i}": image(size) for i in range(cameras)} | {"state": tensor(7)}
    flags = {name: tensor(dtype="bool") for name in ("is_first", "is_last", "is_terminal")}
    return {"observation": tree(observation), "action": tensor(7), "language_instruction": text(), **flags}


def bridge_episode(rng: np.random.Generator, steps: int, size: int, cameras: int) -> dict[str, Any]:
    """One episode with smooth, noisy pictures of the weight of real ones."""
    flags = np.arange(steps)
    values: dict[str, Any] = {
        "steps/observation/state": rng.normal(0, 0.1, (steps, 7)),
        "steps/action": np.column_stack([rng.normal(0, 0.01, (steps, 6)), flags % 2]),
        "steps/language_instruction": [b"put the spoon on the towel"] * steps,
        "steps/is_first": (flags == 0).astype(int),
        "steps/is_last": (flags == steps - 1).astype(int),
        "steps/is_terminal": (flags == steps - 1).astype(int),
    }
    for camera in range(cameras):
        patches = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        base = cv2.resize(patches, (size, size), interpolation=cv2.INTER_CUBIC)
        noise = rng.integers(0, 12, (size, size, 3), dtype=np.uint8)
        frames = [np.roll(base, 2 * step, 1) // 2 + noise + 60 for step in range(steps)]
        jpegs = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for frame in frames]
        values[f"steps/observation/image_{camera}"] = jpegs
    return values


def main() -> None:
    """Write a set like Bridge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--shards", type=int, default=8)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    episodes = [bridge_episode(rng, options.steps, options.size, options.cameras) for _ in range(options.episodes)]
    write_set(options.folder, "bridge_dataset", bridge_step(options.size, options.cameras), episodes, options.shards)


if __name__ == "__main__":
    main()

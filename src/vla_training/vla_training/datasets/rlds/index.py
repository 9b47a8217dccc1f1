"""A split of an RLDS data set in, where each of its episodes lies and what is told of it out; one pass over it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_policy.errors import DataError, nearest
from vla_training.datasets.index_cache import cached_index
from vla_training.datasets.rlds.example import (
    Buffer,
    ExampleError,
    Kind,
    Values,
    byte_strings,
    floats,
    integers,
    locate,
)
from vla_training.datasets.rlds.features import Feature, parse_features
from vla_training.datasets.rlds.tfrecord import records
from vla_training.datasets.source import EpisodeInfo

INFO, FEATURES = "dataset_info.json", "features.json"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
INDEX_VERSION = 1  # goes up when the same shards give another index
_ENDS_BYTES = 4096  # of a shard's both ends; a record ends with the checksum of its data


@dataclass(frozen=True, slots=True)
class Split:
    """A split as dataset_info.json tells it. shards: its files; lengths: how many episodes lie in each."""

    name: str
    features: Mapping[str, Feature]
    shards: tuple[Path, ...]
    lengths: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an episode lies: bytes [start, start + length) of a shard; `record`: its number there."""

    shard: Path
    record: int
    start: int
    length: int


def read_split(root: Path, name: str) -> Split:
    """Read dataset_info.json and features.json, and look whether every shard is there. Raises: DataError."""
    info, tree = _read_json(root / INFO), _read_json(root / FEATURES)
    try:
        features = parse_features(tree)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise DataError(f"{root / FEATURES}: no features of RLDS episodes ({type(problem).__name__}: {problem}); "
                        "expected what TensorFlow Datasets writes, with 'steps'") from None
    splits = {split["name"]: split for split in info.get("splits", ())}
    if name not in splits:
        raise DataError(f"{root / INFO}: no split '{name}'; {nearest(name, splits)}")
    if info.get("fileFormat", "tfrecord") != "tfrecord":
        raise DataError(f"{root / INFO}: got files of format '{info['fileFormat']}', expected tfrecord; convert them")
    lengths = tuple(int(length) for length in splits[name].get("shardLengths", ()))
    shards = tuple(_shards(root, info["name"], splits[name], len(lengths)))
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise DataError(f"{root}: {len(missing)} of {len(shards)} shards of split '{name}' are missing, the first is "
                        f"{missing[0] if missing else '-'}; download them")
    return Split(name, features, shards, lengths, _fingerprint(root, shards))


def read_index(root: Path, split: Split, check_data: bool) -> tuple[list[EpisodeInfo], list[Place]]:
    """Every episode of a split; from the cached index where there is one. Raises: DataError naming file and record."""
    key = hashlib.sha256(f"{INDEX_VERSION} {split.fingerprint}".encode()).hexdigest()
    rows = cached_index(root, f"rlds-{split.name}", key, lambda: list(_rows(split, check_data)))
    episodes, places = [], []
    for number, (shard, record, start, length, steps, sentences, extra) in enumerate(rows):
        path = split.shards[shard]
        episodes.append(EpisodeInfo(f"{path}: episode {number} (record {record})", steps, tuple(sentences), "", extra))
        places.append(Place(path, record, start, length))
    return episodes, places


def _rows(split: Split, check_data: bool) -> Iterator[list[Any]]:
    for shard, (path, expected) in enumerate(zip(split.shards, split.lengths, strict=True)):
        found = 0
        for record, (start, example) in enumerate(records(path, check_data)):
            try:
                values = locate(example)
                steps = _count_steps(split.features, example, values)
                sentences, extra = _words(split.features, example, values)
            except (ExampleError, UnicodeDecodeError, IndexError) as problem:
                raise DataError(f"{path}: record {record}: {problem}; it was not written whole") from None
            yield [shard, record, start, len(example), steps, sentences, extra]
            found += 1
        if found != expected:
            raise DataError(f"{path}: got {found} episodes, expected {expected} as {INFO} tells; copy the file again")


def _count_steps(features: Mapping[str, Feature], example: Buffer, values: Mapping[str, Values]) -> int:
    """Steps of an episode, on which all features must agree. Raises: ExampleError."""
    counts = {
        feature.name: _count(example, values[path], feature.shape)
        for path, feature in features.items()
        if path in values and feature.in_steps and (feature.kind == "image" or min(feature.shape, default=1) > 0)
    }
    different = sorted(set(counts.values()))
    if len(different) != 1 or different[0] % 1:
        told = ", ".join(f"{name} {count:g}" for name, count in counts.items()) or "none"
        raise ExampleError(f"features disagree on the number of steps: {told}")
    return int(different[0])


def _count(example: Buffer, values: Values, shape: tuple[int, ...]) -> float:
    """How many steps the values make: one string each, or as many numbers as `shape` has."""
    if values.kind is Kind.BYTES:
        return len(values.spans)
    read = floats if values.kind is Kind.FLOATS else integers
    return len(read(example, values)) / math.prod(shape)


def _words(
    features: Mapping[str, Feature], example: Buffer, values: Mapping[str, Values]
) -> tuple[list[str], dict[str, Any]]:
    """The distinct sentences of an episode, and what is told of it besides."""
    sentences: dict[str, None] = {}
    extra = {}
    for path, feature in features.items():
        if path not in values:
            continue
        if feature.is_sentence:
            texts = byte_strings(example, values[path])
            sentences.update(dict.fromkeys(bytes(text).decode().strip() for text in texts))
        elif not feature.in_steps and feature.kind == "text":
            extra[path] = bytes(byte_strings(example, values[path])[0]).decode()
        elif not feature.in_steps and feature.kind == "tensor" and not feature.shape and feature.encoding == "none":
            read = floats if values[path].kind is Kind.FLOATS else integers
            extra[path] = read(example, values[path])[0].item()
    return [sentence for sentence in sentences if sentence], extra


def _shards(root: Path, dataset: str, split: Mapping[str, Any], count: int) -> Iterator[Path]:
    template = split.get("filepathTemplate") or _TEMPLATE
    for number in range(count):
        parts = {"DATASET": dataset, "SPLIT": split["name"], "FILEFORMAT": "tfrecord", "SHARD_INDEX": f"{number:05d}",
                 "NUM_SHARDS": f"{count:05d}", "SHARD_X_OF_Y": f"{number:05d}-of-{count:05d}"}
        yield root / template.format_map(parts)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror}; expected the folder of one version of an RLDS data set, which "
                        f"holds {INFO}, {FEATURES} and the shards") from None
    except ValueError as problem:
        raise DataError(f"{path}: no JSON ({problem}); copy the file again") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: got a {type(data).__name__}, expected a JSON object; copy the file again")
    return data


def _fingerprint(root: Path, shards: Sequence[Path]) -> str:
    digest = hashlib.sha256((root / INFO).read_bytes() + (root / FEATURES).read_bytes())
    for shard in shards:
        size = shard.stat().st_size
        with shard.open("rb") as file:
            head = file.read(_ENDS_BYTES)
            file.seek(max(0, size - _ENDS_BYTES))
            digest.update(f"{shard.name} {size}".encode() + head + file.read())
    return digest.hexdigest()

"""A LeRobot folder in, where each episode lies out: files, rows and times of versions 3.0, 2.1 and 2.0.

Source: https://huggingface.co/docs/lerobot/lerobot-dataset-v3. Version 2 has a data file and videos for each episode.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vla_policy.errors import DataError
from vla_training.datasets.lerobot.rows import reading
from vla_training.datasets.source import Column, EpisodeInfo, SourceSpec

VERSION = "v3.0"
OLD_VERSIONS = ("v2.1", "v2.0")
INFO_PATH = "meta/info.json"
CONTRACT_PATH = "meta/contract.json"  # ours: what the data tells of its robot contract; others ignore it
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
FINGERPRINT_TAIL_BYTES = 4096  # of a parquet file: its footer holds the extremes of every column


@dataclass(frozen=True, slots=True)
class Place:
    """Where an episode lies. index: its published number. rows: first and last + 1 in its data file.

    videos: camera -> (file, time of the episode's first frame in it [s]); none for images that lie in the data file.
    """

    index: int
    data: Path
    rows: tuple[int, int]
    videos: Mapping[str, tuple[Path, float]]


@dataclass(frozen=True, slots=True)
class Layout:
    """What meta/ says of a data set; places and episodes in the same order."""

    spec: SourceSpec
    episodes: list[EpisodeInfo]
    places: list[Place]


def read_layout(root: Path) -> Layout:
    """Read meta/ and look whether every file named there is there. Raises: DataError naming the file."""
    info = _read_info(root)
    try:
        fps, cameras, columns = float(info["fps"]), _cameras(info), _columns(info)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        expected = "fps as a number, and dtype, shape and names of every feature"
        raise DataError(f"{root / INFO_PATH}: expected {expected}; got {problem!r}") from problem
    rows = list(_rows_v3(root) if info["codebase_version"] == VERSION else _rows_v2(root, info))
    if not rows:
        raise DataError(f"{root}: no episode in meta/; expected at least one")
    videos = [name for name in cameras if info["features"][name]["dtype"] == "video"]
    places = _places(root, info, rows, videos)
    episodes = [_episode(row, place) for row, place in zip(rows, places, strict=True)]
    spec = SourceSpec("lerobot", fps, cameras, columns, _fingerprint(root, places), _recorded_with(root))
    return Layout(spec, episodes, places)


def _read_info(root: Path) -> dict[str, Any]:
    path = root / INFO_PATH
    if not path.is_file():
        raise DataError(f"{root}: no {INFO_PATH} in it; expected a LeRobot data set, {VERSION} or {OLD_VERSIONS[0]}")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = info.get("codebase_version")
        if version not in (VERSION, *OLD_VERSIONS):
            known = ", ".join((VERSION, *OLD_VERSIONS))
            got = f"codebase_version is {version}, expected one of {known}"
            raise DataError(f"{path}: {got}; use lerobot's own converter")
        missing = [key for key in ("fps", "features", "data_path") if key not in info]
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as problem:
        raise DataError(f"{path}: not the JSON of a data set ({problem}); it is cut off or corrupt") from problem
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)} in it; expected those of a LeRobot data set {version}")
    return info


def _recorded_with(root: Path) -> dict[str, str] | None:
    path = root / CONTRACT_PATH
    if not path.is_file():
        return None
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as problem:
        raise DataError(f"{path}: not a JSON object ({problem}); it is cut off or corrupt") from problem


def _rows_v3(root: Path) -> Iterator[dict[str, Any]]:
    """Rows of meta/episodes, without the statistics of each episode, which are most of it."""
    paths = sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet"))
    if not paths:
        raise DataError(f"{root}: no meta/episodes/chunk-*/file-*.parquet in it; the recording was not finished")
    for path in paths:
        with reading(path):
            file = pq.ParquetFile(path)
            names = [name for name in file.schema_arrow.names if not name.startswith(("stats/", "meta/"))]
            table = file.read(names)
        absent = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"} - set(names)
        if absent:
            raise DataError(f"{path}: no column {', '.join(sorted(absent))} in it")
        yield from table.to_pylist()


def _rows_v2(root: Path, info: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of meta/episodes.jsonl as version 3 would have them: a file for each episode, chunks of `chunks_size`."""
    path = root / "meta/episodes.jsonl"
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected one line for each episode of a {OLD_VERSIONS[0]} data set")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            index, length, tasks = int(row.pop("episode_index")), int(row.pop("length")), row.pop("tasks")
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as problem:
            raise DataError(f"{path}, line {number}: expected episode_index, tasks and length ({problem})") from problem
        yield {
            "episode_index": index,
            "length": length,
            "tasks": tasks,
            "dataset_from_index": 0,
            "dataset_to_index": length,
            **row,
        }


def _places(root: Path, info: Mapping[str, Any], rows: list[dict[str, Any]], videos: list[str]) -> list[Place]:
    places = []
    first_index: dict[Path, int] = {}  # in a data file; the published row numbers run through all files
    for row in rows:
        data = _path(root, info, "data_path", row, "data")
        first_index[data] = min(first_index.get(data, row["dataset_from_index"]), row["dataset_from_index"])
    for row in rows:
        data = _path(root, info, "data_path", row, "data")
        start = row["dataset_from_index"] - first_index[data]
        cameras = {
            key: (
                _path(root, info, "video_path", row, f"videos/{key}", key),
                float(row.get(f"videos/{key}/from_timestamp", 0.0)),
            )
            for key in videos
        }
        places.append(Place(row["episode_index"], data, (start, start + row["length"]), cameras))
    return places


def _path(
    root: Path, info: Mapping[str, Any], template: str, row: Mapping[str, Any], prefix: str, key: str = ""
) -> Path:
    """The template of info.json filled in; whichever version's fields it names."""
    try:
        name = info[template].format(
            video_key=key,
            chunk_index=row.get(f"{prefix}/chunk_index"),
            file_index=row.get(f"{prefix}/file_index"),
            episode_index=row["episode_index"],
            episode_chunk=row["episode_index"] // int(info.get("chunks_size", 1000)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        place = f"{root / INFO_PATH}: {template} {info.get(template)!r}"
        raise DataError(f"{place} cannot be filled in for episode {row['episode_index']} ({problem})") from problem
    return root / name


def _episode(row: Mapping[str, Any], place: Place) -> EpisodeInfo:
    known = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
    extra = {key: value for key, value in row.items() if "/" not in key and key not in known}
    return EpisodeInfo(
        key=f"{place.data}, episode {place.index}",
        length=int(row["length"]),
        instructions=tuple(str(task) for task in row["tasks"] if task),
        task=str(extra.get("task_name", "")),
        extra=extra,
    )


def _cameras(info: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Camera -> (height, width). Images are published as (H, W, C) or, with names that say so, as (C, H, W)."""
    cameras = {}
    for name, feature in info["features"].items():
        if feature["dtype"] in ("video", "image"):
            shape = tuple(feature["shape"])
            first = (_names(feature.get("names")) or ("",))[0]
            channels_first = first.startswith("channel") or (
                not first and shape[0] in (1, 3) and shape[-1] not in (1, 3)
            )
            cameras[name] = (shape[1], shape[2]) if channels_first else (shape[0], shape[1])
    return cameras


def _columns(info: Mapping[str, Any]) -> dict[str, Column]:
    """The columns of numbers, truth values and words; annotations in nested tables are left out."""
    columns = {}
    for name, feature in info["features"].items():
        if feature["dtype"] in ("video", "image", "language", "audio"):
            continue
        dtype = "str" if feature["dtype"] == "string" else str(feature["dtype"])
        shape = () if name in INDEX_COLUMNS else tuple(feature["shape"])
        columns[name] = Column(dtype, shape, _names(feature.get("names")))
    return columns


def _names(names: Any) -> tuple[str, ...] | None:
    """Names along the last axis: a list, or a mapping to lists such as {"motors": [...]}."""
    if isinstance(names, Mapping):
        lists = [part if isinstance(part, list) else [key] for key, part in names.items()]
        names = [name for part in lists for name in part]
    return tuple(str(name) for name in names) if isinstance(names, list) and names else None


def _fingerprint(root: Path, places: Iterable[Place]) -> str:
    """Digest of meta/, of the names and sizes of all other files and of the parquet footers: content, not dates."""
    digest = hashlib.sha256()
    for path in sorted(path for path in (root / "meta").rglob("*") if path.is_file()):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    files: dict[Path, Place] = {}  # each with the first episode that lies in it
    for place in places:
        for path in (place.data, *(video for video, _ in place.videos.values())):
            files.setdefault(path, place)
    for path, place in files.items():
        if not path.is_file():
            raise DataError(f"{path}: no such file; episode {place.index} lies in it; download or record it again")
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}".encode())
        if path.suffix == ".parquet":
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - FINGERPRINT_TAIL_BYTES))
                digest.update(file.read())
    return digest.hexdigest()

"""What was written in, the tables and JSON of a LeRobot v3.0 data set out; each file appears whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla_training.datasets.lerobot.layout import CONTRACT_PATH, INDEX_COLUMNS, INFO_PATH, VERSION
from vla_training.datasets.lerobot.video import PIXEL_FORMAT

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
CHUNK_FILES = 1000
GROUP_ROWS = 10_000  # what must be read of a data file to get at one row


@dataclass(frozen=True, slots=True)
class Feature:
    """One column. dtype: as numpy names it, string, or video (shape H, W, 3). names: of the last axis, or None."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    @property
    def numpy_dtype(self) -> str:
        """dtype of its array."""
        return "str" if self.dtype == "string" else self.dtype


def numbered(file_index: int) -> dict[str, int]:
    """Where a file's number lies among chunks."""
    return {"chunk_index": file_index // CHUNK_FILES, "file_index": file_index % CHUNK_FILES}


class RunningStatistics:
    """Extremes, mean and standard deviation of rows that come part by part (Chan et al. 1979, pairwise updating)."""

    def __init__(self) -> None:
        self._count = 0
        self._low: Any = np.inf
        self._high: Any = -np.inf
        self._mean: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Take (N, *shape) more rows."""
        rows = values.astype(np.float64)
        count, mean = self._count + len(rows), rows.mean(0)
        apart = mean - self._mean
        self._squares = self._squares + ((rows - mean) ** 2).sum(0) + apart**2 * self._count * len(rows) / count
        self._mean = self._mean + apart * len(rows) / count
        self._low, self._high = np.minimum(self._low, rows.min(0)), np.maximum(self._high, rows.max(0))
        self._count = count

    def as_lists(self) -> dict[str, list[Any]]:
        """As meta/stats.json holds them; one number is a list of one."""
        values = {"min": self._low, "max": self._high, "mean": self._mean, "std": np.sqrt(self._squares / self._count)}
        return {name: np.atleast_1d(value).tolist() for name, value in values.items()} | {"count": [self._count]}


def nested(values: NDArray[Any]) -> pa.Array:
    """An array (N, a, b) as fixed-size lists of lists; (N, 1) as plain numbers."""
    array = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:] if values.shape[1:] != (1,) else ()):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def plain_values(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Extra values of an episode as a table takes them: numbers, truth values and words, and the rest as JSON."""
    told = {key.replace("/", "."): value for key, value in extra.items() if value is not None}
    told = {key: value.item() if isinstance(value, np.generic) else value for key, value in told.items()}
    simple = bool | int | float | str
    return {k: value if isinstance(value, simple) else json.dumps(value, default=str) for k, value in told.items()}


def write_meta(
    root: Path,
    episodes: Sequence[dict[str, Any]],
    tasks: Sequence[str],
    statistics: Mapping[str, RunningStatistics],
    features: Mapping[str, Feature],
    fps: float,
    robot: str,
    frames: int,
    recorded_with: Mapping[str, str] | None,
) -> None:
    """Write meta/, info.json last."""
    names = dict.fromkeys(name for row in episodes for name in row)
    write_table({name: _column([row.get(name) for row in episodes]) for name in names}, root / EPISODES_PATH)
    _write_tasks(root, tasks)
    write_json({key: value.as_lists() for key, value in statistics.items()}, root / "meta/stats.json")
    if recorded_with:
        write_json(dict(recorded_with), root / CONTRACT_PATH)
    write_json(_info(features, fps, robot, len(episodes), frames, len(tasks)), root / INFO_PATH)


def write_table(columns: Mapping[str, pa.Array], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a parquet file."""
    table = pa.table(dict(columns)).replace_schema_metadata(metadata)
    with _replacing(path) as partial:
        pq.write_table(table, partial, row_group_size=GROUP_ROWS)


def write_json(data: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file."""
    with _replacing(path) as partial:
        partial.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


class _replacing:
    """`with _replacing(path) as partial:` what was written to `partial` is at `path` afterwards, or nothing is."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._partial = path, path.with_name(path.name + ".partial")

    def __enter__(self) -> Path:
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            os.replace(self._partial, self._path)
        else:
            self._partial.unlink(missing_ok=True)


def _column(values: list[Any]) -> pa.Array:
    """A column of the episodes' table; words where the episodes do not agree on a type."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _write_tasks(root: Path, tasks: Sequence[str]) -> None:
    """tasks.parquet as pandas writes a frame whose index is the task's text."""
    described = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}
        for name, kind, numpy_kind in described
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "pandas_version": "2.0.0", "columns": columns}
    values = {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks)}
    write_table(values, root / "meta/tasks.parquet", {"pandas": json.dumps(pandas)})


def _info(
    features: Mapping[str, Feature], fps: float, robot: str, episodes: int, frames: int, tasks: int
) -> dict[str, Any]:
    described = {key: _described(feature, fps) for key, feature in features.items()}
    described["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    described |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in INDEX_COLUMNS[1:]}
    return {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": fps if fps != int(fps) else int(fps),
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(feature.dtype == "video" for feature in features.values()) else None,
        "features": described,
    }


def _described(feature: Feature, fps: float) -> dict[str, Any]:
    described: dict[str, Any] = {
        "dtype": feature.dtype,
        "shape": list(feature.shape),
        "names": list(feature.names) if feature.names else None,
    }
    if feature.dtype == "video":
        described["info"] = {
            "video.height": feature.shape[0],
            "video.width": feature.shape[1],
            "video.channels": 3,
            "video.codec": "h264",
            "video.pix_fmt": PIXEL_FORMAT,
            "video.fps": fps,
            "video.is_depth_map": False,
            "has_audio": False,
        }
    return described

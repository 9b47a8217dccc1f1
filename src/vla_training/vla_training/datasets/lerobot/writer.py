"""Episodes in, a LeRobot dataset v3.0 folder out, and back into arrays.

Layout: https://huggingface.co/docs/lerobot/lerobot-dataset-v3 (meta/info.json, stats.json, tasks.parquet,
episodes; data and videos as few large files). Several processes may write at once: each fills its own shard
(one data file and one video file per camera), and `finalize` numbers them through and writes the meta data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla_policy.errors import ConfigError
from vla_training.datasets.lerobot.video import VideoWriter

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True, slots=True)
class Feature:
    """One column. dtype: float32, int64 or video (shape H, W, 3). names: of the last axis, or None."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Episode:
    """Where an episode lies: rows [start, stop) of the dataset, its instruction and extra values (a seed,
    …).
    """

    start: int
    stop: int
    task: str
    extra: Mapping[str, Any]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Shard:
    """What one process wrote: column arrays (N, …), its episodes (rows counted from 0), its file number."""

    file_index: int
    columns: dict[str, NDArray[Any]]
    episodes: list[Episode]


class ShardWriter:
    """Writes the episodes of one process. Frames go to mp4 at once; the small columns stay in memory until
    `close`.
    """

    def __init__(self, root: Path, file_index: int, features: Mapping[str, Feature], fps: float) -> None:
        self._features = features
        self._file_index = file_index
        self._rows: dict[str, list[NDArray[Any]]] = {k: [] for k, f in features.items() if f.dtype != "video"}
        self._episodes: list[Episode] = []
        self._videos = {
            key: VideoWriter(
                root / VIDEO_PATH.format(video_key=key, chunk_index=0, file_index=file_index),
                fps,
                feature.shape[0],
                feature.shape[1],
            )
            for key, feature in features.items()
            if feature.dtype == "video"
        }
        self.frame_count = 0

    def add_episode(self, columns: Mapping[str, NDArray[Any]], task: str, extra: Mapping[str, Any]) -> None:
        """Append one episode.

        columns: every feature of the dataset, arrays (T, *feature.shape). Raises: ConfigError where they do
        not fit.
        """
        length = _checked_length(columns, self._features)
        for key, rows in self._rows.items():
            rows.append(np.asarray(columns[key], self._features[key].dtype))
        for key, video in self._videos.items():
            for frame in columns[key]:
                video.write(frame)
        self._episodes.append(Episode(self.frame_count, self.frame_count + length, task, dict(extra)))
        self.frame_count += length

    def close(self) -> Shard:
        """Finish the video files and hand the rest over."""
        for video in self._videos.values():
            video.close()
        columns = {
            key: np.concatenate(rows)
            if rows
            else np.empty((0, *self._features[key].shape), self._features[key].dtype)
            for key, rows in self._rows.items()
        }
        return Shard(self._file_index, columns, self._episodes)


def finalize(
    root: Path, shards: Sequence[Shard], features: Mapping[str, Feature], fps: float, robot: str
) -> None:
    """Write data files and meta data of all `shards`, numbering episodes and rows through in shard order."""
    shards = [shard for shard in sorted(shards, key=lambda s: s.file_index) if shard.episodes]
    if not shards:
        raise ConfigError(f"{root}: no episode was recorded; nothing to write")
    tasks = sorted({episode.task for shard in shards for episode in shard.episodes})
    rows: list[dict[str, Any]] = []
    first_row = 0
    for shard in shards:
        table = _data_table(shard, features, fps, tasks, len(rows), first_row)
        _write(table, root / DATA_PATH.format(chunk_index=0, file_index=shard.file_index))
        rows += [
            _episode_row(episode, shard.file_index, len(rows) + i, first_row, fps, features)
            for i, episode in enumerate(shard.episodes)
        ]
        first_row += len(table)
    _write(pa.Table.from_pylist(rows), root / EPISODES_PATH)
    _write_tasks(root, tasks)
    columns = {k: np.concatenate([s.columns[k] for s in shards]) for k in shards[0].columns}
    _write_json(root / "meta/stats.json", {key: _statistics(values) for key, values in columns.items()})
    _write_json(root / "meta/info.json", _info(features, fps, robot, len(rows), first_row, len(tasks)))


class LeRobotDataset:
    """A v3.0 dataset on disk: small columns as arrays, videos by path. Raises: ConfigError for a folder that
    is none.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        info_path = self.root / "meta/info.json"
        if not info_path.is_file():
            raise ConfigError(f"{self.root}: no meta/info.json in it; expected a LeRobot dataset {VERSION}")
        info = json.loads(info_path.read_text(encoding="utf-8"))
        if info.get("codebase_version") != VERSION:
            raise ConfigError(
                f"{info_path}: codebase_version is {info.get('codebase_version')}, expected {VERSION}; "
                "convert the dataset with lerobot's own converter"
            )
        self.info: dict[str, Any] = info
        self.fps = float(info["fps"])
        self.features = {
            key: Feature(value["dtype"], tuple(value["shape"]), _names(value.get("names")))
            for key, value in info["features"].items()
        }
        files = sorted((self.root / "data").glob("chunk-*/file-*.parquet"))
        self._table = pa.concat_tables([pq.read_table(path) for path in files])
        self.episodes, self._video_files = self._read_episodes()

    @property
    def video_keys(self) -> tuple[str, ...]:
        """Names of the camera columns."""
        return tuple(key for key, feature in self.features.items() if feature.dtype in ("video", "image"))

    def __len__(self) -> int:
        return len(self._table)

    def column(self, key: str) -> NDArray[Any]:
        """A small column as an array (N, *shape). Raises: ConfigError for an unknown one, naming those there
        are.
        """
        if key not in self._table.column_names:
            raise ConfigError(f"{self.root}: no column '{key}'; it has {', '.join(self._table.column_names)}")
        values = self._table.column(key).combine_chunks()
        while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            values = values.flatten()
        shape = self.features[key].shape if key in self.features else (1,)
        array = values.to_numpy(zero_copy_only=False)
        return array.reshape(len(self), *([] if shape == (1,) else shape))

    def video_files(self, key: str) -> list[tuple[Path, int]]:
        """The mp4 files of camera `key` in row order, each with its number of rows."""
        counts: dict[Path, int] = {}
        for episode, files in zip(self.episodes, self._video_files, strict=True):
            counts[files[key]] = counts.get(files[key], 0) + len(episode)
        return list(counts.items())

    def _read_episodes(self) -> tuple[list[Episode], list[dict[str, Path]]]:
        files = sorted((self.root / "meta/episodes").glob("chunk-*/file-*.parquet"))
        episodes, videos = [], []
        for path in files:
            for row in pq.read_table(path).to_pylist():
                extra = {
                    k: v
                    for k, v in row.items()
                    if "/" not in k and k not in ("episode_index", "tasks", "length")
                }
                start, stop = extra.pop("dataset_from_index"), extra.pop("dataset_to_index")
                episodes.append(Episode(start, stop, row["tasks"][0], extra))
                videos.append(
                    {
                        key: self.root
                        / self.info["video_path"].format(
                            video_key=key,
                            chunk_index=row[f"videos/{key}/chunk_index"],
                            file_index=row[f"videos/{key}/file_index"],
                        )
                        for key in self.video_keys
                    }
                )
        return episodes, videos


def _checked_length(columns: Mapping[str, NDArray[Any]], features: Mapping[str, Feature]) -> int:
    if set(columns) != set(features):
        raise ConfigError(f"episode has columns {sorted(columns)}, expected {sorted(features)}")
    length = len(next(iter(columns.values())))
    for key, feature in features.items():
        if np.shape(columns[key]) != (length, *feature.shape):
            raise ConfigError(
                f"column '{key}' has shape {np.shape(columns[key])}, expected {(length, *feature.shape)}"
            )
    return length


def _data_table(
    shard: Shard,
    features: Mapping[str, Feature],
    fps: float,
    tasks: list[str],
    first_episode: int,
    first_row: int,
) -> pa.Table:
    columns: dict[str, pa.Array] = {key: _nested(values) for key, values in shard.columns.items()}
    frame = np.concatenate([np.arange(len(e)) for e in shard.episodes])
    columns["timestamp"] = pa.array((frame / fps).astype(np.float32))
    columns["frame_index"] = pa.array(frame)
    columns["episode_index"] = pa.array(
        np.concatenate([np.full(len(e), first_episode + i) for i, e in enumerate(shard.episodes)])
    )
    columns["index"] = pa.array(np.arange(len(frame)) + first_row)
    columns["task_index"] = pa.array(
        np.concatenate([np.full(len(e), tasks.index(e.task)) for e in shard.episodes])
    )
    return pa.table(columns)


def _nested(values: NDArray[Any]) -> pa.Array:
    """An array (N, a, b) as fixed-size lists of lists; (N, 1) as plain numbers."""
    array = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:] if values.shape[1:] != (1,) else ()):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _episode_row(
    episode: Episode,
    file_index: int,
    episode_index: int,
    first_row: int,
    fps: float,
    features: Mapping[str, Feature],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "episode_index": episode_index,
        "tasks": [episode.task],
        "length": len(episode),
        "data/chunk_index": 0,
        "data/file_index": file_index,
        "dataset_from_index": first_row + episode.start,
        "dataset_to_index": first_row + episode.stop,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        **episode.extra,
    }
    for key, feature in features.items():
        if feature.dtype == "video":
            row |= {
                f"videos/{key}/chunk_index": 0,
                f"videos/{key}/file_index": file_index,
                f"videos/{key}/from_timestamp": episode.start / fps,
                f"videos/{key}/to_timestamp": episode.stop / fps,
            }
    return row


def _write_tasks(root: Path, tasks: list[str]) -> None:
    """tasks.parquet as pandas writes a frame whose index is the task's text."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks)})
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "pandas_version": "2.0.0",
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {
                "name": "task",
                "field_name": "task",
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": None,
            },
        ],
    }
    _write(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), root / "meta/tasks.parquet")


def _info(
    features: Mapping[str, Feature], fps: float, robot: str, episodes: int, frames: int, tasks: int
) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for key, feature in features.items():
        described[key] = {
            "dtype": feature.dtype,
            "shape": list(feature.shape),
            "names": list(feature.names) if feature.names else None,
        }
        if feature.dtype == "video":
            described[key]["info"] = {
                "video.height": feature.shape[0],
                "video.width": feature.shape[1],
                "video.channels": 3,
                "video.codec": "h264",
                "video.pix_fmt": "yuv444p",
                "video.fps": fps,
                "video.is_depth_map": False,
                "has_audio": False,
            }
    described["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    described |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in INDEX_COLUMNS[1:]}
    return {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": fps if fps != int(fps) else int(fps),
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": described,
    }


def _statistics(values: NDArray[Any]) -> dict[str, Any]:
    return {
        "min": values.min(0).tolist(),
        "max": values.max(0).tolist(),
        "mean": values.mean(0).tolist(),
        "std": values.std(0).tolist(),
        "count": [len(values)],
    }


def _names(names: Any) -> tuple[str, ...] | None:
    return tuple(names) if isinstance(names, list) else None


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

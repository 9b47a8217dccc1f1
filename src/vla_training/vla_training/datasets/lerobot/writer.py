"""Episodes in, a LeRobot data set v3.0 folder out: https://huggingface.co/docs/lerobot/lerobot-dataset-v3.

Several processes may write at once: each fills its own shard (one data file and one video file per camera), and
`finalize` numbers them through and writes the meta data, meta/info.json last: a folder without it is no data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.errors import ConfigError, DataError
from vla_training.datasets.lerobot import metadata
from vla_training.datasets.lerobot.metadata import DATA_PATH, VIDEO_PATH, Feature, RunningStatistics, numbered
from vla_training.datasets.lerobot.video import VideoWriter


@dataclass(frozen=True, slots=True)
class WrittenEpisode:
    """Where an episode lies in its shard: rows [start, stop), and for each camera the frames before it in the video.

    extra: values to keep (a seed, an outcome).
    """

    start: int
    stop: int
    instructions: tuple[str, ...]
    extra: Mapping[str, Any]
    video_start: Mapping[str, int]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Shard:
    """What one process wrote: column arrays (N, …), its episodes (rows counted from 0), its file number."""

    file_index: int
    columns: dict[str, NDArray[Any]]
    episodes: list[WrittenEpisode]


class ShardWriter:
    """Writes the episodes of one process. Frames go to mp4 at once; the small columns stay in memory until `close`."""

    def __init__(self, root: Path, file_index: int, features: Mapping[str, Feature], fps: float) -> None:
        self._root, self._file_index, self._features, self._fps = root, file_index, features, fps
        self._rows: dict[str, list[NDArray[Any]]] = {k: [] for k, f in features.items() if f.dtype != "video"}
        self._episodes: list[WrittenEpisode] = []
        self._videos: dict[str, VideoWriter] = {}
        self.frame_count = 0

    def add_episode(
        self, columns: Mapping[str, Any], instructions: str | Sequence[str], extra: Mapping[str, Any]
    ) -> None:
        """Append one episode.

        columns: every feature of the data set, arrays (T, *feature.shape); of a camera also an iterable of its frames.
        Raises: ConfigError where they do not fit; DataError where a camera gives frames of another number or size. What
        was appended before stays whole.
        """
        length = _checked_length(columns, self._features)
        rows = {key: np.asarray(columns[key], self._features[key].numpy_dtype) for key in self._rows}
        videos = {key: self._video(key) for key, feature in self._features.items() if feature.dtype == "video"}
        before = {key: video.frame_count for key, video in videos.items()}
        for key, video in videos.items():
            for frame in _checked_frames(columns[key], key, length, self._features[key].shape):
                video.write(frame)
        for key, values in rows.items():
            self._rows[key].append(values)
        words = (instructions,) if isinstance(instructions, str) else tuple(instructions)
        self._episodes.append(
            WrittenEpisode(self.frame_count, self.frame_count + length, words, metadata.plain_values(extra), before)
        )
        self.frame_count += length

    def close(self) -> Shard:
        """Finish the video files and hand the rest over; videos of which no episode became whole are removed."""
        for key, video in self._videos.items():
            video.close()
            if not self._episodes:
                self._video_path(key).unlink()
        self._videos = {}
        empty = {key: np.empty((0, *self._features[key].shape), self._features[key].numpy_dtype) for key in self._rows}
        columns = {key: np.concatenate([empty[key], *rows]) for key, rows in self._rows.items()}
        return Shard(self._file_index, columns, self._episodes)

    def abandon(self) -> None:
        """Remove the videos that were begun; nothing after `close`."""
        for key, video in self._videos.items():
            video.discard()
            self._video_path(key).unlink(missing_ok=True)
        self._videos = {}

    def _video(self, key: str) -> VideoWriter:
        if key not in self._videos:
            height, width, _ = self._features[key].shape
            self._videos[key] = VideoWriter(self._video_path(key), self._fps, height, width)
        return self._videos[key]

    def _video_path(self, key: str) -> Path:
        return self._root / VIDEO_PATH.format(video_key=key, **numbered(self._file_index))


def finalize(
    root: Path,
    shards: Iterable[Shard],
    features: Mapping[str, Feature],
    fps: float,
    robot: str,
    recorded_with: Mapping[str, str] | None = None,
) -> None:
    """Write data files and meta data, numbering episodes and rows through in the shards' order; one is held at a time.

    recorded_with: what to tell of the robot contract, as in `SourceSpec`. Raises: ConfigError for no episode.
    """
    tasks: dict[str, int] = {}  # sentence -> its number, in order of appearance
    rows: list[dict[str, Any]] = []
    statistics: dict[str, RunningStatistics] = {}
    first_row = 0
    for shard in shards:
        if not shard.episodes:
            continue
        for episode in shard.episodes:
            for sentence in episode.instructions or ("",):
                tasks.setdefault(sentence, len(tasks))
        index = _index_columns(shard, fps, tasks, len(rows), first_row)
        path = root / DATA_PATH.format(**numbered(shard.file_index))
        metadata.write_table({key: metadata.nested(values) for key, values in (shard.columns | index).items()}, path)
        rows += [_episode_row(e, shard, len(rows) + i, first_row, fps) for i, e in enumerate(shard.episodes)]
        for key, values in (shard.columns | index).items():
            if values.dtype.kind != "U":
                statistics.setdefault(key, RunningStatistics()).add(values)
        first_row += shard.episodes[-1].stop
    if not rows:
        raise ConfigError(f"{root}: no episode was recorded; nothing to write")
    metadata.write_meta(root, rows, list(tasks), statistics, features, fps, robot, first_row, recorded_with)


def _checked_length(columns: Mapping[str, Any], features: Mapping[str, Feature]) -> int:
    if set(columns) != set(features):
        raise ConfigError(f"episode has columns {sorted(columns)}, expected {sorted(features)}")
    small = [key for key, feature in features.items() if feature.dtype != "video"] or list(features)
    length = len(columns[small[0]])
    for key, feature in features.items():
        streamed = feature.dtype == "video" and not hasattr(columns[key], "shape")
        if not streamed and np.shape(columns[key]) != (length, *feature.shape):
            raise ConfigError(f"column '{key}' has shape {np.shape(columns[key])}, expected {(length, *feature.shape)}")
    return length


def _checked_frames(
    frames: Iterable[NDArray[np.uint8]], key: str, length: int, shape: tuple[int, ...]
) -> Iterator[NDArray[np.uint8]]:
    count = 0
    for frame in frames:
        if frame.shape != shape:
            raise DataError(f"frame {count} of '{key}' has shape {list(frame.shape)}, expected {list(shape)}")
        yield frame
        count += 1
    if count != length:
        raise DataError(f"'{key}' has {count} frames, expected {length}")


def _index_columns(
    shard: Shard, fps: float, tasks: Mapping[str, int], first_episode: int, first_row: int
) -> dict[str, NDArray[Any]]:
    lengths = [len(episode) for episode in shard.episodes]
    frame = np.concatenate([np.arange(length) for length in lengths])
    task = [tasks[(episode.instructions or ("",))[0]] for episode in shard.episodes]
    return {
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(len(lengths)) + first_episode, lengths),
        "index": np.arange(len(frame)) + first_row,
        "task_index": np.repeat(np.array(task, np.int64), lengths),
    }


def _episode_row(episode: WrittenEpisode, shard: Shard, number: int, first_row: int, fps: float) -> dict[str, Any]:
    place = numbered(shard.file_index)
    row: dict[str, Any] = {
        **episode.extra,
        "episode_index": number,
        "tasks": list(episode.instructions or ("",)),
        "length": len(episode),
        "data/chunk_index": place["chunk_index"],
        "data/file_index": place["file_index"],
        "dataset_from_index": first_row + episode.start,
        "dataset_to_index": first_row + episode.stop,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    for key, before in episode.video_start.items():
        row |= {
            f"videos/{key}/chunk_index": place["chunk_index"],
            f"videos/{key}/file_index": place["file_index"],
            f"videos/{key}/from_timestamp": before / fps,
            f"videos/{key}/to_timestamp": (before + len(episode)) / fps,
        }
    return row

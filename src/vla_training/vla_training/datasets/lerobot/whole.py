"""A LeRobot v3.0 folder in, all of its small columns as arrays out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla_policy.errors import ConfigError
from vla_training.datasets.lerobot.layout import VERSION
from vla_training.datasets.lerobot.metadata import Feature


@dataclass(frozen=True, slots=True)
class Episode:
    """Where an episode lies: rows [start, stop) of the dataset, its instruction and extra values (a seed, …)."""

    start: int
    stop: int
    task: str
    extra: Mapping[str, Any]

    def __len__(self) -> int:
        return self.stop - self.start


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
                extra = {k: v for k, v in row.items() if "/" not in k and k not in ("episode_index", "tasks", "length")}
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


def _names(names: Any) -> tuple[str, ...] | None:
    return tuple(names) if isinstance(names, list) else None

"""A folder in, the reader of its format out; formats are found by what lies in the folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from vla_policy.errors import ConfigError, DataError, nearest
from vla_training.datasets.source import EpisodeSource

# format -> "module:opener", called with the folder; imported when chosen
READERS = {
    "lerobot": "vla_training.datasets.lerobot:LeRobotSource",
    "calvin": "vla_training.datasets.calvin:CalvinSource",
    "calvin_play": "vla_training.datasets.calvin:open_play",  # its hours of play, without language: only when named
    "rlds": "vla_training.datasets.rlds:open_rlds",
    "recorded": "vla_training.datasets.recorded:open_recorded",
}
# format -> names of which one lies in its folder (patterns; ** looks below)
MARKS = {
    "lerobot": ("meta/info.json",),
    "calvin": ("ep_start_end_ids.npy", "training/ep_start_end_ids.npy", "validation/ep_start_end_ids.npy"),
    "rlds": ("features.json", "dataset_info.json", "*/features.json", "*.tfrecord*"),
    "recorded": ("episode.json", "*/episode.json", "metadata.yaml", "*/metadata.yaml"),
}


def open_source(path: Path | str, format: str | None = None) -> EpisodeSource:
    """Open the data set in a folder.

    Raises: ConfigError for an unknown format; DataError where there is no folder, nothing known in it, or the reader
    refuses it.
    """
    root = Path(path)
    if format is not None and format not in READERS:
        raise ConfigError(f"{path}: unknown format '{format}'; {nearest(format, READERS)}")
    if not root.exists():
        raise DataError(f"{path}: no such folder; expected a data set")
    module, opener = READERS[format or detect_format(root)].split(":")
    return getattr(import_module(module), opener)(root)


def detect_format(root: Path) -> str:
    """The format of a folder, by its content. Raises: DataError telling what was found in it."""
    for format, marks in MARKS.items():
        if any(next(root.glob(mark), None) is not None for mark in marks):
            return format
    found = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
    listed = ", ".join(found[:8]) + (f", … {len(found)} in all" if len(found) > 8 else "")
    expected = "; ".join(f"{format}: {' or '.join(marks[:2])}" for format, marks in MARKS.items())
    raise DataError(f"{root}: no data set of a known format in it; got {listed or 'nothing'}, expected {expected}")

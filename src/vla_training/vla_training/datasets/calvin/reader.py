"""A split of CALVIN's data (training/ or validation/) in, its annotated windows or its play out, frame by frame.

Layout: https://github.com/mees/calvin, dataset/README.md: episode_0000000.npz holds one frame, 30 a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.errors import DataError, nearest
from vla_training.datasets.calvin.arrays import load_npy, load_npz, npz_names
from vla_training.datasets.source import Column, EpisodeInfo, SourceSpec

RATE_HZ = 30.0
BOUNDS = "ep_start_end_ids.npy"
LANGUAGE = ("lang_annotations/auto_lang_ann.npy", "auto_lang_ann.npy")
SCENES = "scene_info.npy"
FINGERPRINT_FRAMES = 256  # whose sizes count, of up to two million


class CalvinSource:
    """The `EpisodeSource` of a split: each annotated window [first, last] with its sentence and task is an episode.

    root: the split's folder, or that of the data set, whose training split is then taken. whole_episodes: the hours of
    play as they were recorded, without language. Windows may overlap; `extra["play_episode"]` says which were recorded
    in one go.
    Raises: DataError naming the file.
    """

    def __init__(self, root: Path | str, whole_episodes: bool = False) -> None:
        self.root = _split(Path(root))
        bounds = _bounds(self.root)
        scenes = load_npy(self.root / SCENES) if (self.root / SCENES).is_file() else {}
        self.episodes = _play(self.root, bounds, scenes) if whole_episodes else _annotated(self.root, bounds, scenes)
        self._first = [int(episode.extra["first_frame"]) for episode in self.episodes]
        cameras, columns = _describe(self._frame(0, 0))
        self.spec = SourceSpec("calvin", RATE_HZ, cameras, columns, self._fingerprint(whole_episodes))

    def columns(self, episode: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Small columns (T, *shape) of an episode. Raises: DataError naming file and episode."""
        wanted = list(self.spec.columns) if names is None else list(names)
        for name in wanted:
            self._known(episode, "column", name, self.spec.columns)
        rows = [self._load(episode, frame, wanted) for frame in range(self.episodes[episode].length)]
        shapes = {name: column.shape for name, column in self.spec.columns.items()}
        return {name: self._stack(episode, name, [row[name] for row in rows], shapes[name]) for name in wanted}

    def images(self, episode: int, camera: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames of a camera, uint8 (n, H, W, 3), RGB. Raises: DataError naming file and episode."""
        self._known(episode, "camera", camera, self.spec.cameras)
        wanted, order = np.unique(np.asarray(frames, np.int64), return_inverse=True)
        length = self.episodes[episode].length
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= length:
            key = self.episodes[episode].key
            raise DataError(f"{key}: got frames {list(frames)}, expected some of 0 to {length - 1}")
        images = [self._load(episode, int(frame), [camera])[camera] for frame in wanted]
        return self._stack(episode, camera, images, (*self.spec.cameras[camera], 3))[order]

    def _known(self, episode: int, what: str, name: str, known: Mapping[str, Any]) -> None:
        if name not in known:
            raise DataError(f"{self.episodes[episode].key}: no {what} '{name}'; {nearest(name, known)}")

    def _load(self, episode: int, frame: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        try:
            return load_npz(self._frame(episode, frame), names)
        except DataError as problem:
            raise DataError(f"{problem} (frame {frame} of {self.episodes[episode].key})") from problem

    def _stack(self, episode: int, name: str, parts: list[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[Any]:
        for frame, part in enumerate(parts):
            if part.shape != shape:
                place = f"{self.episodes[episode].key}: {name} of its frame {frame}"
                raise DataError(f"{place} has shape {list(part.shape)}, expected {list(shape)} as in the first episode")
        return np.stack(parts)

    def _frame(self, episode: int, frame: int) -> Path:
        return _frame_path(self.root, self._first[episode] + frame)

    def _fingerprint(self, whole_episodes: bool) -> str:
        """Digest of the index files and of the sizes of some frames: millions would take minutes to look at."""
        digest = hashlib.sha256(b"play" if whole_episodes else b"language")
        for name in (BOUNDS, *LANGUAGE, SCENES):
            if (self.root / name).is_file():
                digest.update(name.encode() + (self.root / name).read_bytes())
        for episode in np.linspace(0, len(self.episodes) - 1, FINGERPRINT_FRAMES).astype(int):
            path = self._frame(episode, 0)
            digest.update(f"{path.name} {path.stat().st_size if path.is_file() else None}".encode())
        return digest.hexdigest()


def open_play(root: Path | str) -> CalvinSource:
    """The hours of play of a split as they were recorded, without language. Raises: DataError: see `CalvinSource`."""
    return CalvinSource(root, whole_episodes=True)


def _split(root: Path) -> Path:
    for folder in (root, root / "training", root / "validation"):
        if (folder / BOUNDS).is_file():
            return folder
    raise DataError(f"{root}: no {BOUNDS} in it; expected a split of CALVIN's data, its folder training or validation")


def _bounds(root: Path) -> NDArray[np.int64]:
    """First and last frame of each play episode, (E, 2), ascending."""
    bounds = load_npy(root / BOUNDS)
    fits = isinstance(bounds, np.ndarray) and bounds.ndim == 2 and bounds.shape[1] == 2 and len(bounds)
    if not fits or bounds.dtype.kind not in "iu" or not np.all(bounds[:, 0] <= bounds[:, 1]):
        expected = "first and last frame of each episode, integers of shape [episodes, 2]"
        raise DataError(f"{root / BOUNDS}: expected {expected}")
    return bounds[np.argsort(bounds[:, 0])].astype(np.int64)


def _play(root: Path, bounds: NDArray[np.int64], scenes: Mapping[str, Sequence[int]]) -> list[EpisodeInfo]:
    return [_episode(root, int(first), int(last), i, scenes, (), "") for i, (first, last) in enumerate(bounds)]


def _annotated(root: Path, bounds: NDArray[np.int64], scenes: Mapping[str, Sequence[int]]) -> list[EpisodeInfo]:
    path = next((root / name for name in LANGUAGE if (root / name).is_file()), None)
    if path is None:
        raise DataError(f"{root}: no {LANGUAGE[0]} in it; without language, read it as format calvin_play")
    data = load_npy(path)
    try:
        windows = [(int(first), int(last)) for first, last in data["info"]["indx"]]
        sentences, tasks = list(data["language"]["ann"]), [str(task) for task in data["language"]["task"]]
        listed = list(zip(windows, sentences, tasks, strict=True))
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        expected = "expected language: {ann, task} and info: {indx}, as many of each"
        raise DataError(f"{path}: {expected}; got {problem!r}") from problem
    episodes = []
    for (first, last), sentence, task in listed:
        play = int(np.searchsorted(bounds[:, 0], first, side="right")) - 1
        if play < 0 or not first <= last <= bounds[play, 1]:
            raise DataError(f"{path}: window {first} to {last} ('{task}') lies in no episode of {root / BOUNDS}")
        said = (sentence,) if isinstance(sentence, str) else tuple(str(text) for text in sentence)
        episodes.append(_episode(root, first, last, play, scenes, said, task))
    if not episodes:
        raise DataError(f"{path}: no annotation in it; expected at least one")
    return episodes


def _episode(
    root: Path,
    first: int,
    last: int,
    play: int,
    scenes: Mapping[str, Sequence[int]],
    sentences: tuple[str, ...],
    task: str,
) -> EpisodeInfo:
    extra = {"first_frame": first, "last_frame": last, "play_episode": play}
    scene = next((name for name, (low, high) in scenes.items() if low <= first <= high), None)
    if scene is not None:
        extra["scene"] = scene
    key = f"{_frame_path(root, first)} to {last:07d}"
    return EpisodeInfo(key, last - first + 1, sentences, task, extra)


def _frame_path(root: Path, number: int) -> Path:
    return root / f"episode_{number:07d}.npz"


def _describe(path: Path) -> tuple[dict[str, tuple[int, int]], dict[str, Column]]:
    """Cameras and columns as the first frame has them; depth and touch are neither."""
    frame = load_npz(path, npz_names(path))
    images = {name: array for name, array in frame.items() if array.dtype == np.uint8 and array.shape[2:] == (3,)}
    cameras = {name: (array.shape[0], array.shape[1]) for name, array in images.items()}
    columns = {name: Column(array.dtype.name, array.shape) for name, array in frame.items() if array.ndim <= 1}
    return cameras, columns

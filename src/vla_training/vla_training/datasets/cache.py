"""A data set's episodes in, memory-mapped arrays out that are made once: its mapped columns, and its images at the
model's size.

Arrays lie in `.cache` beside the data or, where that cannot be written, in the user's cache folder; their names
change with the data set's fingerprint and with all else that they were made from.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.progress import Progress

from vla_policy.errors import DataError
from vla_policy.observation.resize import resize_image
from vla_training.datasets.index_cache import cache_home
from vla_training.datasets.source import EpisodeSource

FOLDER = ".cache"
IMAGES_VERSION = 1  # goes up when the same frames give other images
DECODE_FRAMES = 128  # at a time: what is decoded at full size must fit the memory


class ArrayFile:
    """A .npy file as a memory map, opened late and by each process for itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array: NDArray[Any] | None = None

    @property
    def array(self) -> NDArray[Any]:
        """The memory map, read-only."""
        if self._array is None:
            self._array = np.asarray(np.load(self.path, mmap_mode="r"))  # indexing np.memmap itself is slow
        return self._array

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_array": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def key_of(*parts: Any) -> str:
    """A short digest of anything that JSON takes."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def array_files(
    data: EpisodeSource,
    name: str,
    key: str,
    arrays: Mapping[str, tuple[tuple[int, ...], str]],
    fill: Callable[[dict[str, NDArray[Any]]], None],
) -> dict[str, ArrayFile]:
    """Arrays by name, made by `fill` unless an earlier run made them; whole or not at all.

    arrays: name -> (shape, dtype). Raises: DataError where the disk is too full; what `fill` raises.
    """
    folder = _home_of(data) / f"{name}-{key}"
    if not folder.is_dir():
        need = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in arrays.values())
        with _scratch_folder(folder.parent, name, need) as scratch:
            maps = {
                array: _allocated(scratch / f"{array}.npy", dtype, shape) for array, (shape, dtype) in arrays.items()
            }
            fill(maps)
            for array in maps.values():
                array.flush()
            scratch.chmod(0o755)  # mkdtemp keeps others out
            _publish(scratch, folder)
    return {array: ArrayFile(folder / f"{array}.npy") for array in arrays}


def decoded_images(data: EpisodeSource, episodes: Sequence[int], cameras: Sequence[str], size: int) -> ArrayFile:
    """Every frame of these episodes, one after the other, and of these published cameras: uint8 (N, V, size, size,
    3).
    """
    frames = sum(data.episodes[episode].length for episode in episodes)
    key = key_of(IMAGES_VERSION, data.spec.fingerprint, list(cameras), size, list(episodes))

    def fill(arrays: dict[str, NDArray[Any]]) -> None:
        """Decode episode after episode."""
        row = 0
        with Progress(transient=True) as progress:
            for line in _earlier(_home_of(data)):
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            bar = progress.add_task(f"decoding {data.root.name}", total=frames)
            for episode in episodes:
                length = data.episodes[episode].length
                _decode_episode(data, episode, cameras, arrays["images"][row : row + length])
                row += length
                progress.advance(bar, length)

    return array_files(data, "images", key, {"images": ((frames, len(cameras), size, size, 3), "uint8")}, fill)[
        "images"
    ]


def _decode_episode(data: EpisodeSource, episode: int, cameras: Sequence[str], out: NDArray[np.uint8]) -> None:
    for view, camera in enumerate(cameras):
        for first in range(0, len(out), DECODE_FRAMES):
            frames = np.arange(first, min(first + DECODE_FRAMES, len(out)))
            for frame, image in zip(frames, data.images(episode, camera, frames), strict=True):
                out[frame, view] = resize_image(image, out.shape[2])


def _home_of(data: EpisodeSource) -> Path:
    """The folder of this data set's arrays, there and writable."""
    for place in (data.root / FOLDER, cache_home() / data.spec.fingerprint[:24]):
        try:
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                return place
        except OSError:
            continue
    raise DataError(
        f"{data.root}: neither {data.root / FOLDER} nor {cache_home()} can be written; make one of them writable"
    )


@contextmanager
def _scratch_folder(home: Path, name: str, need: int) -> Iterator[Path]:
    """A folder to fill, removed at the end, and before it those that runs left behind which were killed.

    Raises: DataError where `need` bytes are not free.
    """
    lock = os.open(home, os.O_RDONLY)
    try:
        with suppress(OSError):  # another process fills arrays, or the file system has no locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in home.glob(f".{name}-*"):
                shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        _check_space(home, need, name)
        scratch = Path(tempfile.mkdtemp(dir=home, prefix=f".{name}-"))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os.close(lock)


def _allocated(path: Path, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A memory map whose whole file is on the disk: a write to a hole of a full disk kills the process."""
    try:
        array = open_memmap(path, "w+", dtype, shape)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as problem:
        raise DataError(
            f"{path.parent.parent}: {path.stem} {list(shape)} found no room: {problem.strerror}; make room, or train "
            "with cache: none"
        ) from None
    return array


def _earlier(home: Path) -> list[str]:
    """A line on the images that were decoded before, from other data or for other models, if there are any."""
    files = list(home.glob("images-*/*.npy"))
    if not files:
        return []
    size = sum(file.stat().st_size for file in files)
    return [f"{home}: {size / 1e9:.2f} GB of images decoded earlier; delete the images-* that nothing trains with"]


def _check_space(folder: Path, need: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DataError(
            f"{folder}: {name} need {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make room, or train with "
            f"cache: none{''.join(f'. {line}' for line in _earlier(folder))}"
        )


def _publish(scratch: Path, folder: Path) -> None:
    """Another process may have been faster; its arrays are the same."""
    try:
        os.rename(scratch, folder)
    except OSError:
        if not folder.is_dir():
            raise

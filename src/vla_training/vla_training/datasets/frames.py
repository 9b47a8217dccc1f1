"""A dataset's videos in, memory-mapped frames at the model's size out; decoded once, kept beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.progress import Progress

from vla_policy.errors import ConfigError
from vla_policy.observation.resize import resize_image
from vla_training.datasets.lerobot import LeRobotDataset
from vla_training.datasets.lerobot.video import read_video

CACHE_FOLDER = ".cache"


def cached_frames(dataset: LeRobotDataset, cameras: Sequence[str], size: int) -> NDArray[np.uint8]:
    """Every frame of every camera, uint8 (N, V, size, size, 3), memory-mapped, rows as in the dataset.

    cameras: names as in the contract; their columns are `observation.images.<name>`.
    """
    folder = dataset.root / CACHE_FOLDER
    path = folder / f"{'-'.join(cameras)}-{size}.npy"
    if path.is_file():
        frames = np.load(path, mmap_mode="r")
        if len(frames) == len(dataset):
            return frames
    folder.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    out = open_memmap(partial, "w+", np.uint8, (len(dataset), len(cameras), size, size, 3))
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"decoding {dataset.root.name}", total=len(dataset) * len(cameras))
        for view, camera in enumerate(cameras):
            _decode_camera(dataset, camera, out[:, view], lambda: progress.advance(bar))
    out.flush()
    os.replace(partial, path)
    return np.load(path, mmap_mode="r")


def _decode_camera(
    dataset: LeRobotDataset, camera: str, out: NDArray[np.uint8], on_frame: Callable[[], None]
) -> None:
    row = 0
    for path, count in dataset.video_files(f"observation.images.{camera}"):
        end = row + count
        for frame in read_video(path):
            if row < end:
                out[row] = resize_image(frame, out.shape[1])
            row += 1
            on_frame()
        if row != end:
            raise ConfigError(
                f"{path}: it has {row - end + count} frames, expected {count}; record the dataset again"
            )

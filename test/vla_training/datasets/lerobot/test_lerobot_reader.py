"""The LeRobot reader: any frame in any order, of every layout, in every process; only what is asked for is read."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from make_lerobot import (
    CAMERAS,
    TASKS,
    camera_frame,
    episode_rows,
    write_lerobot,
    write_lerobot_images,
    write_lerobot_v21,
)

from vla_training.datasets.lerobot import LeRobotSource
from vla_training.datasets.lerobot.video import VideoFile, VideoPool

SIZE = (48, 64)


def expected_frames(camera: int, episode: int, frames: np.ndarray) -> np.ndarray:
    return np.stack([camera_frame(camera, episode, int(frame), *SIZE) for frame in frames])


def check_whole(data: LeRobotSource, tolerance: int) -> None:
    """Every episode, every camera, frames in disorder and with repeats."""
    rng = np.random.default_rng(0)
    for number, episode in enumerate(data.episodes):
        found = data.columns(number)
        for name, values in episode_rows(number, episode.length).items():
            assert np.array_equal(found[name], values), name
        assert episode.instructions == (TASKS[number % len(TASKS)],)
        for view, camera in enumerate(CAMERAS):
            frames = rng.integers(0, episode.length, 6)
            images = data.images(number, camera, frames)
            assert images.dtype == np.uint8
            assert np.abs(images.astype(int) - expected_frames(view, number, frames)).max() <= tolerance


LAYOUTS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "one file": (lambda root: write_lerobot(root, (12, 9, 15), SIZE), 6),
    "a file for every episode": (lambda root: write_lerobot(root, (12, 9, 15), SIZE, shards=3), 6),
    "images in the data file": (lambda root: write_lerobot_images(root, (6, 4), SIZE), 0),
    "version 2.1": (lambda root: write_lerobot_v21(root, (12, 9, 15), SIZE), 6),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_back_what_went_in(tmp_path: Path, layout: str) -> None:
    write, tolerance = LAYOUTS[layout]
    check_whole(LeRobotSource(write(tmp_path / "set")), tolerance)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LeRobotSource:
    return LeRobotSource(write_lerobot(tmp_path_factory.mktemp("data") / "set", (12, 40, 15), SIZE, shards=2))


def test_the_spec_says_what_was_published(data: LeRobotSource) -> None:
    assert data.spec.format == "lerobot" and data.spec.rate_hz == 10.0
    assert data.spec.cameras == dict.fromkeys(CAMERAS, SIZE)
    assert data.spec.columns["action"].names == ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert data.spec.columns["frame_index"].shape == ()
    assert data.episodes[1].task == "lift_the_red_block" and data.episodes[1].extra["seed"] == 1
    assert str(data.root / "data/chunk-000/file-000.parquet, episode 1") == data.episodes[1].key


def test_a_pickled_copy_reads_the_same(data: LeRobotSource) -> None:
    data.images(0, CAMERAS[0], np.array([0]))  # with files open
    check_whole(pickle.loads(pickle.dumps(data)), 6)


def test_a_forked_process_reads_beside_its_parent(data: LeRobotSource) -> None:
    frames = np.arange(40)
    before = data.images(1, CAMERAS[0], frames)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child() -> None:
        for _ in range(5):
            queue.put(bool(np.array_equal(data.images(1, CAMERAS[0], frames), before)))

    process = context.Process(target=child, daemon=True)
    process.start()
    here = [np.array_equal(data.images(1, CAMERAS[0], frames), before) for _ in range(5)]
    assert all(here) and all(queue.get(timeout=60) for _ in range(5))
    process.join(60)
    assert process.exitcode == 0


def test_only_frames_near_those_asked_for_are_decoded(data: LeRobotSource, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    advance = VideoFile._advance

    def counting(self: VideoFile) -> None:
        decoded.append(1)
        advance(self)

    monkeypatch.setattr(VideoFile, "_advance", counting)
    data.images(1, CAMERAS[0], np.array([3, 30, 31]))
    assert len(decoded) <= 6  # each from the key frame before it, of which there is one every second frame


def test_only_row_groups_that_hold_an_episode_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_lerobot(tmp_path / "set", (10, 10, 10, 10), SIZE)
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=5)
    data = LeRobotSource(root)
    read = []
    group = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: (read.append(a[1:]), group(*a, **k))[1])
    assert np.array_equal(data.columns(2, ["action"])["action"], episode_rows(2, 10)["action"])
    assert read == [(4, ["action", "episode_index"]), (5, ["action", "episode_index"])]


def test_a_pool_keeps_a_few_files_open_and_reopens_the_others(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", (4, 4, 4), SIZE, shards=3)
    files = sorted(root.rglob("videos/observation.images.static/**/*.mp4"))
    pool = VideoPool(size=1)
    for _ in range(2):
        for episode, path in enumerate(files):
            image = pool.frames(path, np.array([0.1]), 0.01)[0].astype(int)
            assert np.abs(image - camera_frame(0, episode, 1, *SIZE)).max() <= 6
    assert len(pool._files) == 1


def test_images_published_channels_first_keep_their_size(tmp_path: Path) -> None:
    root = write_lerobot_images(tmp_path / "set", (3,), SIZE)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][CAMERAS[0]] |= {"shape": [3, 48, 64], "names": ["channels", "height", "width"]}
    info["features"][CAMERAS[1]] |= {"shape": [3, 48, 64], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    assert LeRobotSource(root).spec.cameras == dict.fromkeys(CAMERAS, SIZE)


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", (3, 3), SIZE)
    shutil.copytree(root, tmp_path / "copy")
    first = LeRobotSource(root).spec.fingerprint
    assert LeRobotSource(tmp_path / "copy").spec.fingerprint == first
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    action = table.column_names.index("action")
    pq.write_table(table.set_column(action, "action", table["action"].take(list(range(6))[::-1])), path)
    assert LeRobotSource(root).spec.fingerprint != first

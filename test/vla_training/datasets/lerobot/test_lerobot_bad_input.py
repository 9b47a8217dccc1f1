"""Damaged LeRobot data: one sentence that names file and episode, never another's data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_lerobot import CAMERAS, write_lerobot, write_lerobot_images, write_lerobot_v21

from vla_policy.errors import DataError
from vla_training.datasets.lerobot import LeRobotSource

DATA = "data/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAMERAS[0]}/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lerobot(tmp_path_factory.mktemp("data") / "set", (8, 6))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def edit_info(root: Path, **changes: object) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | changes))


def set_column(root: Path, name: str, values: pa.Array) -> None:
    table = pq.read_table(root / DATA)
    pq.write_table(table.set_column(table.column_names.index(name), name, values), root / DATA)


OPENING: dict[str, tuple[Callable[[Path], object], str]] = {
    "no meta": (
        lambda root: shutil.rmtree(root / "meta"),
        r"set: no meta/info\.json in it; expected a LeRobot data set",
    ),
    "cut info": (lambda root: cut(root / "meta/info.json", 0.5), r"info\.json: not the JSON of a data set"),
    "another version": (
        lambda root: edit_info(root, codebase_version="v1.6"),
        r"codebase_version is v1\.6, expected one",
    ),
    "another path": (
        lambda root: edit_info(root, data_path="data/{chunk}.parquet"),
        r"data_path 'data/\{chunk\}",
    ),
    "no rate": (lambda root: edit_info(root, fps=None), r"info\.json: expected fps as a number, and dtype, shape"),
    "a feature without type": (
        lambda root: edit_info(root, features={"a": {}}),
        r"every feature; got KeyError\('dtype'\)",
    ),
    "no episodes": (lambda root: shutil.rmtree(root / "meta/episodes"), r"no meta/episodes/.* in it; the recording"),
    "cut episodes": (
        lambda root: cut(root / "meta/episodes/chunk-000/file-000.parquet", 0.7),
        r"file-000\.parquet: not a readable parquet file .*; it is cut off or corrupt",
    ),
    "no data file": (
        lambda root: (root / DATA).unlink(),
        r"data/chunk-000/file-000\.parquet: no such file; episode 0 lies",
    ),
    "no video": (
        lambda root: (root / VIDEO).unlink(),
        r"static/chunk-000/file-000\.mp4: no such file; episode 0 lies in it",
    ),
    "bad contract": (lambda root: (root / "meta/contract.json").write_text("[1"), r"contract\.json: not a JSON object"),
}


@pytest.mark.parametrize("damage", OPENING)
def test_what_is_seen_when_it_is_opened(root: Path, damage: str) -> None:
    harm, said = OPENING[damage]
    harm(root)
    with pytest.raises(DataError, match=said):
        LeRobotSource(root)


READING: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut data": (lambda root: cut(root / DATA, 0.6), r"file-000\.parquet: not a readable parquet .*\(episode 1\)"),
    "no data": (
        lambda root: (root / DATA).write_bytes(b""),
        r"file-000\.parquet: not a readable parquet .*\(episode 1\)",
    ),
    "too few rows": (
        lambda root: pq.write_table(pq.read_table(root / DATA).slice(0, 10), root / DATA),
        r"file-000\.parquet: it has 10 rows, expected at least 14; it is cut off \(episode 1\)",
    ),
    "another's rows": (
        lambda root: set_column(root, "episode_index", pa.array([0] * 9 + [1] * 5)),
        r"rows 8 to 13 are of episodes \[0, 1\], expected only 1; meta/ and data/ are not of the same recording",
    ),
    "no column": (
        lambda root: pq.write_table(pq.read_table(root / DATA).drop_columns(["action"]), root / DATA),
        r"file-000\.parquet: no column action; it has .*\(episode 1\)",
    ),
    "another shape": (
        lambda root: set_column(root, "action", pa.array([[1.0] * 5] * 14)),
        r"episode 1: column 'action' is not float32 of shape \[7\] in every frame",
    ),
    "ragged rows": (
        lambda root: set_column(root, "action", pa.array([[1.0] * (6 + i % 3) for i in range(14)][::-1])),
        r"episode 1: column 'action' is not float32 of shape \[7\] in every frame",
    ),
}


@pytest.mark.parametrize("damage", READING)
def test_what_is_seen_when_columns_are_read(root: Path, damage: str) -> None:
    harm, said = READING[damage]
    harm(root)
    with pytest.raises(DataError, match=said):
        LeRobotSource(root).columns(1)


def test_a_cut_video_is_named_with_its_episode(root: Path) -> None:
    cut(root / VIDEO, 0.5)
    with pytest.raises(DataError, match=r"file-000\.mp4: it cannot be decoded .*\(episode 1, camera 'obs.*static'\)"):
        LeRobotSource(root).images(1, CAMERAS[0], np.array([0]))


def test_a_video_that_ends_too_early_is_named_with_its_episode(root: Path, tmp_path: Path) -> None:
    short = write_lerobot(tmp_path / "short", (8, 2))
    shutil.copy(short / VIDEO, root / VIDEO)
    data = LeRobotSource(root)
    assert data.images(1, CAMERAS[0], np.array([0, 1])).shape[0] == 2
    with pytest.raises(DataError, match=r"file-000\.mp4: no frame at 1\.2000 s .* got the end; .*\(episode 1, camera"):
        data.images(1, CAMERAS[0], np.array([0, 4]))
    assert data.images(1, CAMERAS[0], np.array([1])).shape[0] == 1  # it goes on after an error


def test_times_between_frames_are_not_guessed(root: Path) -> None:
    times = pa.array(np.concatenate([np.arange(8) / 10, np.arange(6) / 10 + 0.05]).astype(np.float32))
    set_column(root, "timestamp", times)
    with pytest.raises(DataError, match=r"no frame at 0\.8500 s \(tolerance 0\.0250 s\), got one at 0\.9000 s"):
        LeRobotSource(root).images(1, CAMERAS[0], np.array([0]))


def test_times_that_stand_still_are_refused(root: Path) -> None:
    set_column(root, "timestamp", pa.array(np.zeros(14, np.float32)))
    with pytest.raises(DataError, match="episode 1: timestamps do not grow from frame to frame"):
        LeRobotSource(root).images(1, CAMERAS[0], np.array([0, 1]))


def test_unknown_names_are_met_with_the_nearest(root: Path) -> None:
    data = LeRobotSource(root)
    with pytest.raises(DataError, match=r"episode 0: no camera 'observation\.images\.statik'; did you mean '.*static'"):
        data.images(0, "observation.images.statik", np.array([0]))
    with pytest.raises(DataError, match=r"episode 0: no column 'actions'; did you mean 'action'"):
        data.columns(0, ["actions"])


@pytest.mark.parametrize("frames", [[-1], [8], []])
def test_frames_outside_of_the_episode_are_refused(root: Path, frames: list[int]) -> None:
    with pytest.raises(DataError, match="episode 0: got frames .*, expected some of 0 to 7"):
        LeRobotSource(root).images(0, CAMERAS[0], np.array(frames, np.int64))


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no image")])
def test_a_bad_image_is_named_with_its_episode(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    root = write_lerobot_images(tmp_path / "set", (4, 4))
    harm(root / f"images/{CAMERAS[0]}/1_3.png")
    data = LeRobotSource(root)
    assert len(data.images(1, CAMERAS[0], np.arange(3))) == 3
    with pytest.raises(DataError, match="episode 1.*static"):
        data.images(1, CAMERAS[0], np.arange(4))


def test_version_2_without_or_with_bad_episode_lines_is_refused(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "set", (3, 3))
    lines = (root / "meta/episodes.jsonl").read_text()
    (root / "meta/episodes.jsonl").write_text(lines + '{"episode_index": 2}\n')
    with pytest.raises(DataError, match=r"episodes\.jsonl, line 3: expected episode_index, tasks and length"):
        LeRobotSource(root)
    (root / "meta/episodes.jsonl").unlink()
    with pytest.raises(DataError, match=r"episodes\.jsonl: no such file"):
        LeRobotSource(root)

"""The LeRobot v3 writer: what goes in comes out, in the layout that others read, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fabricated import LENGTHS, SENTENCES, episode_columns, tabletop, write_dataset
from make_lerobot import camera_frame

from vla_policy.errors import ConfigError, DataError
from vla_training.datasets.lerobot import Feature, LeRobotSource, ShardWriter, finalize
from vla_training.datasets.lerobot.metadata import RunningStatistics
from vla_training.tabletop.demonstrator import features

CAMERAS = ("observation.images.static", "observation.images.wrist")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    root = tmp_path_factory.mktemp("data") / "set"
    return root, write_dataset(root)


def test_small_columns_come_back_exactly(written: tuple[Path, list[dict]]) -> None:
    root, episodes = written
    data = LeRobotSource(root)
    for key in ("observation.state", "observation.pose", "observation.target_position", "action"):
        for number, columns in enumerate(episodes):
            assert np.array_equal(data.columns(number, [key])[key], columns[key]), (key, number)


def test_episodes_come_back_in_order(written: tuple[Path, list[dict]]) -> None:
    data = LeRobotSource(written[0])
    assert [episode.length for episode in data.episodes] == list(LENGTHS)
    assert [episode.instructions for episode in data.episodes] == [(SENTENCES[0],), (SENTENCES[1],)] * 2
    assert data.episodes[1].extra["seed"] == 1
    assert np.array_equal(data.columns(2)["index"], np.arange(8, 17))


def test_frames_come_back_nearly_as_they_were(written: tuple[Path, list[dict]]) -> None:
    root, episodes = written
    data = LeRobotSource(root)
    for number, columns in enumerate(episodes):
        for camera in CAMERAS:
            frames = data.images(number, camera, np.arange(LENGTHS[number]))
            assert np.abs(frames.astype(int) - columns[camera]).max() <= 6  # what H.264 may cost


def test_layout_is_that_of_version_3(written: tuple[Path, list[dict]]) -> None:
    root = written[0]
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, sum(LENGTHS), 2)
    assert info["features"]["action"] == {"dtype": "float32", "shape": [4, 7], "names": list(tabletop().action_names)}
    data = pq.read_table(root / "data/chunk-000/file-001.parquet")
    assert data["index"].to_pylist() == list(range(8, 21))
    assert data["episode_index"].to_pylist() == [2] * 9 + [3] * 4
    assert data["timestamp"].to_pylist()[:3] == pytest.approx([0.0, 0.2, 0.4])
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert episodes[3]["videos/observation.images.static/file_index"] == 1
    assert episodes[3]["videos/observation.images.static/from_timestamp"] == pytest.approx(9 / 5)
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert tasks["task"].to_pylist() == list(SENTENCES)


def test_statistics_are_those_of_all_rows(written: tuple[Path, list[dict]]) -> None:
    root, episodes = written
    found = json.loads((root / "meta/stats.json").read_text())["action"]
    rows = np.concatenate([columns["action"] for columns in episodes]).astype(np.float64)
    assert np.allclose(found["mean"], rows.mean(0)) and np.allclose(found["std"], rows.std(0))
    assert np.allclose(found["min"], rows.min(0)) and np.allclose(found["max"], rows.max(0))
    assert found["count"] == [len(rows)]


def test_running_statistics_stay_exact_far_from_zero() -> None:
    rows = 1e6 + np.random.default_rng(0).normal(size=(1000, 2))
    running = RunningStatistics()
    for part in np.split(rows, [1, 10, 500]):
        running.add(part)
    assert np.allclose(running.as_lists()["std"], rows.std(0), rtol=1e-6)


def test_several_sentences_words_and_truth_values_come_back(tmp_path: Path) -> None:
    columns = {"action": Feature("float32", (2,)), "phase": Feature("string", (1,)), "held": Feature("bool", (1,))}
    writer = ShardWriter(tmp_path, 0, columns, 10.0)
    values = {
        "action": np.ones((3, 2), np.float32),
        "phase": np.array([["reach"], ["grasp"], ["lift"]]),
        "held": np.array([[False], [True], [True]]),
    }
    writer.add_episode(values, ("lift it", "pick it up"), {"seed": np.int64(3), "pose": [1.0, 2.0]})
    writer.add_episode(values, (), {"seed": "none"})
    finalize(tmp_path, [writer.close()], columns, 10.0, "test", {"base frame": "world"})
    data = LeRobotSource(tmp_path)
    assert [episode.instructions for episode in data.episodes] == [("lift it", "pick it up"), ()]
    assert data.episodes[0].extra["seed"] == "3" and json.loads(data.episodes[0].extra["pose"]) == [1.0, 2.0]
    assert data.spec.recorded_with == {"base frame": "world"}
    found = data.columns(1)
    assert found["phase"][:, 0].tolist() == ["reach", "grasp", "lift"]
    assert found["held"].dtype == bool and found["held"][:, 0].tolist() == [False, True, True]


def test_more_files_than_a_chunk_holds_lie_in_the_next(tmp_path: Path) -> None:
    columns = {"camera": Feature("video", (16, 16, 3)), "action": Feature("float32", (2,))}
    shards = []
    for index in (999, 1000):
        writer = ShardWriter(tmp_path, index, columns, 10.0)
        frames = (camera_frame(0, index, frame, 16, 16) for frame in range(3))
        writer.add_episode({"camera": frames, "action": np.full((3, 2), index, np.float32)}, "go", {})
        shards.append(writer.close())
    finalize(tmp_path, shards, columns, 10.0, "test")
    assert (tmp_path / "data/chunk-001/file-000.parquet").is_file()
    data = LeRobotSource(tmp_path)
    assert data.columns(1)["action"][0, 0] == 1000
    assert data.images(1, "camera", np.array([2])).shape == (1, 16, 16, 3)


def test_an_episode_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 0, features(tabletop(), 32, 4), 5.0)
    columns = episode_columns(3, np.random.default_rng(0))
    columns["action"] = columns["action"][:2]
    with pytest.raises(ConfigError, match=r"'action' has shape \(2, 4, 7\), expected \(3, 4, 7\)"):
        writer.add_episode(columns, "open the drawer", {})


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([np.zeros((16, 16, 3), np.uint8)] * 2, "'camera' has 2 frames, expected 3"),
        (
            [np.zeros((16, 16, 3), np.uint8), np.zeros((8, 16, 3), np.uint8)],
            r"frame 1 of 'camera' has shape \[8, 16, 3\]",
        ),
    ],
)
def test_an_episode_whose_video_breaks_off_costs_no_other(tmp_path: Path, frames: list, said: str) -> None:
    columns = {"camera": Feature("video", (16, 16, 3)), "action": Feature("float32", (2,))}
    writer = ShardWriter(tmp_path, 0, columns, 10.0)

    def whole(episode: int) -> dict:
        images = (camera_frame(0, episode, frame, 16, 16) for frame in range(3))
        return {"camera": images, "action": np.full((3, 2), episode, np.float32)}

    writer.add_episode(whole(0), "go", {})
    with pytest.raises(DataError, match=said):
        writer.add_episode({"camera": iter(frames), "action": np.zeros((3, 2), np.float32)}, "go", {})
    writer.add_episode(whole(2), "go", {})
    finalize(tmp_path, [writer.close()], columns, 10.0, "test")
    data = LeRobotSource(tmp_path)
    assert [data.columns(i)["action"][0, 0] for i in range(2)] == [0, 2]
    for number, episode in enumerate((0, 2)):
        frames = data.images(number, "camera", np.arange(3)).astype(int)
        assert np.abs(frames - [camera_frame(0, episode, frame, 16, 16) for frame in range(3)]).max() <= 6


def test_nothing_recorded_is_refused(tmp_path: Path) -> None:
    shard = ShardWriter(tmp_path, 0, {}, 5.0).close()
    with pytest.raises(ConfigError, match="no episode was recorded"):
        finalize(tmp_path, [shard], {}, 5.0, "tabletop")


def test_a_data_set_whose_meta_data_could_not_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"action": Feature("float32", (2,))}
    writer = ShardWriter(tmp_path, 0, columns, 10.0)
    writer.add_episode({"action": np.ones((3, 2), np.float32)}, "go", {})
    shard = writer.close()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vla_training.datasets.lerobot.metadata.pq.write_table", full)
    with pytest.raises(OSError, match="No space left"):
        finalize(tmp_path, [shard], columns, 10.0, "test")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(DataError, match=r"no meta/info\.json in it"):
        LeRobotSource(tmp_path)

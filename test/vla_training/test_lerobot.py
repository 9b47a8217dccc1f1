"""The LeRobot v3 writer and reader: what goes in comes out, in the layout that others read."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fabricated import LENGTHS, SENTENCES, episode_columns, tabletop, write_dataset

from vla_policy.errors import ConfigError
from vla_training.datasets.cache import decoded_images
from vla_training.datasets.lerobot import LeRobotDataset, LeRobotSource, ShardWriter, finalize
from vla_training.tabletop.demonstrator import features


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    root = tmp_path_factory.mktemp("data") / "set"
    return root, write_dataset(root)


def test_small_columns_come_back_exactly(written: tuple[Path, list[dict]]) -> None:
    root, episodes = written
    dataset = LeRobotDataset(root)
    for key in ("observation.state", "observation.pose", "observation.target_position", "action"):
        expected = np.concatenate([columns[key] for columns in episodes])
        assert np.array_equal(dataset.column(key), expected), key


def test_episodes_come_back_in_order(written: tuple[Path, list[dict]]) -> None:
    dataset = LeRobotDataset(written[0])
    assert [len(episode) for episode in dataset.episodes] == list(LENGTHS)
    assert [episode.start for episode in dataset.episodes] == [0, 5, 8, 17]
    assert [episode.task for episode in dataset.episodes] == [SENTENCES[0], SENTENCES[1]] * 2
    assert dataset.episodes[1].extra["seed"] == 1


def test_frames_come_back_nearly_as_they_were(written: tuple[Path, list[dict]]) -> None:
    root, episodes = written
    cameras = ("observation.images.static", "observation.images.wrist")
    frames = decoded_images(LeRobotSource(root), range(4), cameras, 32).array
    expected = np.stack(
        [np.concatenate([c[f"observation.images.{name}"] for c in episodes]) for name in ("static", "wrist")],
        1,
    )
    assert frames.shape == expected.shape
    assert (
        np.abs(frames.astype(int) - expected).max() <= 6
    )  # what H.264 and the change of colour space may cost


def test_layout_is_that_of_version_3(written: tuple[Path, list[dict]]) -> None:
    root = written[0]
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, sum(LENGTHS), 2)
    assert info["features"]["action"] == {
        "dtype": "float32",
        "shape": [4, 7],
        "names": list(tabletop().action_names),
    }
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


def test_an_episode_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 0, features(tabletop(), 32, 4), 5.0)
    columns = episode_columns(3, np.random.default_rng(0))
    columns["action"] = columns["action"][:2]
    with pytest.raises(ConfigError, match=r"'action' has shape \(2, 4, 7\), expected \(3, 4, 7\)"):
        writer.add_episode(columns, "open the drawer", {})


def test_nothing_recorded_is_refused(tmp_path: Path) -> None:
    shard = ShardWriter(tmp_path, 0, {}, 5.0).close()
    with pytest.raises(ConfigError, match="no episode was recorded"):
        finalize(tmp_path, [shard], {}, 5.0, "tabletop")


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no meta/info\.json"):
        LeRobotDataset(tmp_path)


def test_an_unknown_column_is_named(written: tuple[Path, list[dict]]) -> None:
    with pytest.raises(ConfigError, match="no column 'forces'; it has .*observation.state"):
        LeRobotDataset(written[0]).column("forces")

"""Windows of frames with the actions that follow: inside their episode, padded at the end, repeatable."""

from pathlib import Path

import numpy as np
import pytest
from fabricated import LENGTHS, tabletop, write_config, write_dataset

from vla_policy.errors import ConfigError
from vla_training.config import Source, load_training_file
from vla_training.datasets.windows import (
    Demonstrations,
    draw_windows,
    gather_images,
    index_windows,
    load_demonstrations,
)

CHUNK = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Demonstrations:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "set")
    config = load_training_file(write_config(root / "run.yaml", root / "set"))[0].model
    return load_demonstrations([Source(path=str(root / "set"))], tabletop(), config)


def test_a_window_pads_after_its_episode(data: Demonstrations) -> None:
    index = index_windows(data, np.array([1]), np.array([0]), 4, CHUNK)  # episode 1: frames 5, 6, 7
    assert index.frames.tolist() == [[5, 6, 7, 7]]
    assert index.valid.tolist() == [[True, True, True, False]]


def test_actions_end_with_their_episode(data: Demonstrations) -> None:
    index = index_windows(data, np.array([1]), np.array([0]), 4, CHUNK)
    assert index.rows[0, 0].tolist() == list(range(20, 28))
    assert index.rows_valid[0, 1].all()
    assert index.rows_valid[0, 2].tolist() == [True] * 4 + [False] * 4
    assert not index.rows_valid[0, 3].any()
    assert index.rows.max() < 32  # no row of the next episode


def test_drawn_windows_stay_inside_their_episodes(data: Demonstrations) -> None:
    index = draw_windows(data, np.arange(4), 200, 4, CHUNK, np.random.default_rng(0))
    assert (index.frames >= data.first[index.episode][:, None]).all()
    assert (index.frames < data.stop[index.episode][:, None]).all()
    assert index.valid[:, 0].all()
    assert set(index.episode) == {0, 1, 2, 3}


def test_every_frame_is_drawn(data: Demonstrations) -> None:
    for window in (1, 4):
        index = draw_windows(data, np.arange(4), 800, window, CHUNK, np.random.default_rng(0))
        assert set(index.frames[index.valid].tolist()) == set(range(sum(LENGTHS)))


def test_the_same_random_stream_draws_the_same_windows(data: Demonstrations) -> None:
    first, second = (
        draw_windows(data, np.arange(4), 16, 4, CHUNK, np.random.default_rng(5)) for _ in range(2)
    )
    assert np.array_equal(first.frames, second.frames)


def test_images_of_two_datasets_are_joined(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / name)
    config = load_training_file(write_config(tmp_path / "run.yaml", tmp_path / "one"))[0].model
    joined = load_demonstrations(
        [Source(path=str(tmp_path / "one")), Source(path=str(tmp_path / "two"))], tabletop(), config
    )
    images = gather_images(joined, np.array([[2, 23]]))
    assert len(joined.first) == 8
    assert np.array_equal(images[0, 0], joined.images[0][2])
    assert np.array_equal(images[0, 1], joined.images[1][2])


def test_only_the_chosen_tasks_are_used(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set")
    config = load_training_file(write_config(tmp_path / "run.yaml", tmp_path / "set"))[0].model
    chosen = Source(path=str(tmp_path / "set"), tasks=("lift_the_red_block",))
    assert load_demonstrations([chosen], tabletop(), config).first.tolist() == [5, 17]
    with pytest.raises(
        ConfigError, match="no task 'lift_the_red_blok' in it; did you mean 'lift_the_red_block'"
    ):
        load_demonstrations([chosen.model_copy(update={"tasks": ("lift_the_red_blok",)})], tabletop(), config)


def test_a_rate_that_does_not_fit_the_contract_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set")
    config = load_training_file(write_config(tmp_path / "run.yaml", tmp_path / "set"))[0].model
    slow = tabletop().model_copy(update={"action": tabletop().action.model_copy(update={"rate_hz": 10.0})})
    with pytest.raises(
        ConfigError, match="5 frames/s with 4 action rows each, the contract's rate is 10 rows/s"
    ):
        load_demonstrations([Source(path=str(tmp_path / "set"))], slow, config)

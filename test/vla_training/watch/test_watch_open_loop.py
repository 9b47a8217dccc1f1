"""Open loop: no error for what was recorded, the known one for what is shifted; recordings are what the robot sent."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated import IMAGE_SIZE, LENGTHS, ROWS_PER_FRAME, tabletop, write_dataset
from policies import bundle
from watched import Replayer, always, open_loop_result, recording

from vla_policy.errors import DataError
from vla_policy.observation.proprioception import proprioception
from vla_policy.policy import Policy
from vla_training.datasets.config import Source
from vla_training.datasets.prepared import prepare_source
from vla_training.open_loop import main
from vla_training.watch.measured import load_open_loop, save_open_loop
from vla_training.watch.open_loop import Recording, measure, replaying
from vla_training.watch.recordings import recordings

CONTRACT = tabletop()
RNG = np.random.default_rng(0)


def actions(rows: int) -> np.ndarray:
    return RNG.normal(size=(rows, 7))


def test_a_policy_that_says_what_was_recorded_has_no_error() -> None:
    wanted = actions(9)
    policy = Replayer(wanted)
    result = measure(always(policy), [recording(wanted)], CONTRACT)
    assert result.error_KA.shape == (4, 7) and (result.error_KA == 0).all()
    assert result.episodes == 1 and result.chunks == 5 and result.execute_rows == 2
    assert policy.instructions == ["open the drawer"]
    assert result.scalars()["open_loop/relative_error"] == 0
    assert np.allclose(result.spread_A, wanted.std(axis=0))


def test_a_policy_that_is_a_row_late_has_the_error_of_a_row() -> None:
    ramp = np.arange(10.0)[:, None] * np.arange(1, 8)  # dimension a grows by a + 1 a row
    result = measure(always(Replayer(ramp, late=1)), [recording(ramp[:-1])], CONTRACT)
    assert np.allclose(result.error_KA, np.arange(1, 8)), "every row and dimension is off by exactly one row's growth"
    assert np.allclose(result.error_A, np.arange(1, 8))
    assert np.allclose([result.scalars()[f"open_loop/row/{row}"] for row in range(4)], 1 / ramp[:-1, 0].std())


def test_rows_behind_the_end_of_an_episode_do_not_count() -> None:
    result = measure(always(Replayer(np.ones((1, 7)), rows=4)), [recording(np.ones((1, 7)))], CONTRACT)
    assert (result.error_KA[0] == 0).all() and np.isnan(result.error_KA[1:]).all()
    assert "open_loop/row/1" not in result.scalars() and result.scalars()["open_loop/error/x"] == 0


def test_drawn_episodes_keep_what_would_have_been_executed() -> None:
    first, second = actions(6), actions(5)
    policies = iter([Replayer(first), Replayer(second)])
    found = measure(lambda _: next(policies), [recording(first), recording(second, key="episode 1")], CONTRACT, drawn=2)
    assert [one.key for one in found.drawn] == ["episode 0", "episode 1"]
    assert np.array_equal(found.drawn[1].executed_NA, second) and found.drawn[1].chunks_CKA.shape == (3, 4, 7)
    assert found.drawn[0].row_s == 0.05 and list(found.drawn[0].starts) == [0, 2, 4]


def test_nothing_to_compare_with_is_refused() -> None:
    with pytest.raises(DataError, match="no recorded episode"):
        measure(always(Replayer(actions(3))), [], CONTRACT)
    with pytest.raises(DataError, match="empty: got no frame"):
        measure(always(Replayer(actions(3))), [Recording("empty", "open", lambda: iter(()), actions(0))], CONTRACT)


def test_measuring_leaves_the_random_draws_of_a_training_alone() -> None:
    class Noisy(Replayer):
        """Adds torch's noise, as a flow head does."""

        def step(self, observation: object) -> object:
            torch.rand(3)
            return super().step(observation)

    wanted = actions(6)
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    measure(always(Noisy(wanted)), [recording(wanted)], CONTRACT)
    assert torch.equal(torch.rand(4), expected)


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    result = open_loop_result()
    save_open_loop(tmp_path / "open_loop.npz", result)
    found = load_open_loop(tmp_path / "open_loop.npz")
    assert found.scalars() == result.scalars() and found.names == result.names and found.execute_rows == 2
    assert found.drawn[0].instruction == "open the drawer" and found.drawn[0].row_s == 0.05
    assert np.array_equal(found.drawn[0].chunks_CKA, result.drawn[0].chunks_CKA)
    assert load_open_loop(tmp_path / "nothing.npz") is None


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    root = tmp_path_factory.mktemp("data") / "set"
    return root, write_dataset(root)


def test_a_recording_is_what_the_robot_sent(dataset: tuple[Path, list[dict]]) -> None:
    root, written = dataset
    policy = bundle()
    prepared = prepare_source(Source(path=str(root)), CONTRACT, policy.config, "none")
    every = [np.ones(len(LENGTHS), np.bool_)]
    found = recordings([prepared], every, CONTRACT, policy.config, most=99)
    assert [len(one.actions_NA) for one in found] == [length * ROWS_PER_FRAME for length in LENGTHS]
    for number, one in enumerate(found):
        columns = written[number]
        assert np.array_equal(one.actions_NA, columns["action"].reshape(-1, 7).astype(np.float64))
        seen = list(one.observations())
        assert [observation.stamp_ns for observation in seen] == [200_000_000 * n for n in range(LENGTHS[number])]
        felt = [proprioception(CONTRACT, one, policy.config.proprioception_joints) for one in seen]
        assert np.array_equal(np.stack(felt), prepared.state.array[prepared.first[number] : prepared.first[number + 1]])
        for t, observation in enumerate(seen):
            images = prepared.data.images(number, "observation.images.wrist", np.array([t]))
            assert np.array_equal(observation.images["wrist"], images[0])
            assert observation.images["wrist"].shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert len(recordings([prepared], every, CONTRACT, policy.config, most=2)) == 2
    assert len(recordings([prepared], [np.arange(4) == 2], CONTRACT, policy.config, most=9)) == 1


def test_a_policy_replays_images_of_any_size(dataset: tuple[Path, list[dict]]) -> None:
    policy = bundle()
    assert policy.contract.cameras["static"].height != IMAGE_SIZE
    prepared = prepare_source(Source(path=str(dataset[0])), CONTRACT, policy.config, "none")
    (one,) = recordings([prepared], [np.arange(4) == 0], CONTRACT, policy.config, most=1)
    stepped = replaying(policy, "cpu")(next(one.observations()))
    assert isinstance(stepped, Policy)
    result = measure(replaying(policy, "cpu"), [one], CONTRACT, drawn=1)
    assert result.chunks == LENGTHS[0] and np.isfinite(result.error_KA).all()


def test_the_command_measures_a_bundle(
    dataset: tuple[Path, list[dict]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vla_policy.checkpoint import save_bundle

    save_bundle(tmp_path / "bundle", bundle())
    output = tmp_path / "out"
    assert main([str(tmp_path / "bundle"), str(dataset[0]), "--episodes", "2", "--output", str(output)]) == 0
    assert {path.name for path in output.iterdir()} == {
        "open_loop.npz", "open_loop.json", "action_error.png", "trajectory_0.png", "trajectory_1.png"
    }
    assert load_open_loop(output / "open_loop.npz").episodes == 2
    assert "gripper" in capsys.readouterr().out
    assert main([str(tmp_path / "bundle"), str(tmp_path / "nowhere")]) == 1
    assert "no such folder; expected a data set" in " ".join(capsys.readouterr().out.split())

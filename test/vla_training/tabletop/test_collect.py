"""Collecting in the simulator: valid datasets, repeatable episodes, clean labels under noise, places."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from fabricated import tabletop

from sim_bridges.tabletop.sim import TabletopSim
from vla_policy.errors import VlaError
from vla_training.datasets.lerobot import LeRobotSource
from vla_training.tabletop.collect import CHAIN, main, make_jobs, parse_counts
from vla_training.tabletop.demonstrator import (
    MAX_STEP_M,
    Disturbance,
    Noise,
    Recording,
    demonstrate,
    demonstrate_chain,
)
from vla_training.tabletop.sentences import all_sentences

SMALL = Recording(image_size=32)


@pytest.fixture(scope="module")
def sim() -> TabletopSim:
    return TabletopSim(image_size=224)


def test_collect_writes_a_dataset_and_what_it_did(tmp_path: Path) -> None:
    status = main(
        [
            "--output",
            str(tmp_path / "set"),
            "--episodes",
            "0",
            "--task",
            "press_button=2",
            "--workers",
            "1",
            "--image-size",
            "32",
            "--first-seed",
            "5",
        ]
    )
    assert status == 0
    dataset = LeRobotSource(tmp_path / "set")
    assert [episode.extra["seed"] for episode in dataset.episodes] == [5, 6]
    assert dataset.spec.rate_hz == 5 and dataset.spec.columns["action"].shape == (4, 7)
    facts = json.loads((tmp_path / "set/meta/collection.json").read_text())
    assert facts["report"]["press_button"]["kept"] == 2
    assert "press_button=2" in facts["provenance"]["command"]


def test_an_existing_folder_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path), "--episodes", "1"]) == 1
    assert "already there" in capsys.readouterr().out.replace("\n", " ")


def test_the_same_seed_gives_the_same_demonstration(sim: TabletopSim) -> None:
    first, second = (demonstrate(sim, tabletop(), "push_left", 3, SMALL) for _ in range(2))
    assert first.success and first.episode == second.episode
    assert all(np.array_equal(first.columns[key], second.columns[key]) for key in first.columns)


def test_the_labels_are_those_of_the_expert_not_the_noise(sim: TabletopSim) -> None:
    calm = demonstrate(
        sim,
        tabletop(),
        "lift_red_block",
        1,
        Recording(image_size=32, noise=Noise(share=0.0, start_share=0.0)),
    )
    wild = demonstrate(
        sim,
        tabletop(),
        "lift_red_block",
        1,
        Recording(
            image_size=32,
            noise=Noise(
                share=1.0, start_share=0.0, burst_probability=1.0, rows=(1, 1), gripper_probability=0.0
            ),
        ),
    )
    assert np.array_equal(calm.columns["action"][0, 0], wild.columns["action"][0, 0])
    assert not np.allclose(
        calm.columns["observation.pose"][2], wild.columns["observation.pose"][2], atol=1e-3
    )


def test_a_disturbance_stays_within_the_limits_of_a_row() -> None:
    disturbance = Disturbance(Noise(share=1.0, burst_probability=1.0, move_m=0.5), np.random.default_rng(0))
    row = np.array([0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    for _ in range(20):
        disturbed = disturbance.apply(row)
        assert np.linalg.norm(disturbed[:3]) <= MAX_STEP_M + 1e-12
        assert disturbed[6] in (0.0, 1.0)


def test_the_recorded_place_is_the_side_that_a_push_must_touch(sim: TabletopSim) -> None:
    shown = demonstrate(sim, tabletop(), "push_left", 0, SMALL)
    sim.reset("push_left", 0)
    assert shown.columns["observation.target_position"][0] == pytest.approx(
        sim.target_position() + [0, 0.05, 0], abs=1e-6
    )


def test_the_recorded_place_moves_on_once_the_block_is_in_the_hand(sim: TabletopSim) -> None:
    calm = Recording(image_size=32, noise=Noise(share=0.0, start_share=0.0))
    places = demonstrate(sim, tabletop(), "put_in_drawer", 0, calm).columns["observation.target_position"]
    sim.reset("put_in_drawer", 0)
    assert places[0] == pytest.approx(sim.target_position(), abs=1e-6)
    inside = sim.positions()["drawer_inside"]
    assert np.linalg.norm(places - inside, axis=1).min() < 0.01


def test_a_chain_gives_an_episode_for_each_task_that_begins_where_the_last_one_ended(sim: TabletopSim) -> None:
    shown = demonstrate_chain(sim, tabletop(), 3, SMALL)
    chain = sim.draw_chain(3)
    assert [one.episode.task for one in shown] == [step.task for step in chain.steps]
    assert all(one.success for one in shown)
    for earlier, later in itertools.pairwise(shown):
        ways = later.columns["observation.pose"][0] - earlier.columns["observation.pose"][-1]
        assert np.linalg.norm(ways[:3]) < 0.15  # the arm did not jump: a frame is at most 9 cm
    again = demonstrate_chain(sim, tabletop(), 3, SMALL)
    assert all(np.array_equal(a.columns["action"], b.columns["action"]) for a, b in zip(shown, again, strict=True))


def test_collecting_chains_writes_their_tasks(tmp_path: Path) -> None:
    arguments = ["--output", str(tmp_path / "set"), "--episodes", "0", "--chains", "1", "--workers", "1"]
    assert main([*arguments, "--image-size", "32", "--first-seed", "3"]) == 0
    dataset = LeRobotSource(tmp_path / "set")
    assert len(dataset.episodes) == 5 and {episode.extra["seed"] for episode in dataset.episodes} == {3}


def test_tasks_and_chains_come_in_turn() -> None:
    assert make_jobs({"push_left": 1, CHAIN: 2}, 7) == [("push_left", 7), (CHAIN, 7), (CHAIN, 8)]


def test_every_instruction_of_the_simulator_is_among_the_sentences(sim: TabletopSim) -> None:
    known = {sentence.text for sentence in all_sentences()}
    assert len(known) == len(all_sentences())
    assert {sim.reset(task, seed).instruction for task in sim.tasks for seed in range(30)} <= known


def test_counts_can_be_set_by_task_and_mistakes_are_named() -> None:
    assert parse_counts(3, ["open_drawer=1"])["open_drawer"] == 1
    with pytest.raises(VlaError, match="did you mean 'open_drawer'"):
        parse_counts(3, ["open_drawr=1"])
    with pytest.raises(VlaError, match="expected TASK=COUNT"):
        parse_counts(3, ["open_drawer"])

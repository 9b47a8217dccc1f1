"""Tasks, words, success oracles and experts of the tabletop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sim_bridges.tabletop import TASKS, TabletopSim, expert
from sim_bridges.tabletop.demonstration import demonstrate
from sim_bridges.tabletop.experts import MAX_STEP_M, MAX_TURN_RAD
from sim_bridges.tabletop.measure import table
from sim_bridges.tabletop.scene import BLOCK_GAP_M, BLOCKS
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_contract
from vla_policy.types import Command

DT_NS = 50_000_000


@pytest.fixture(scope="module")
def contract():
    return load_contract(find_contract("tabletop"))


@pytest.fixture(scope="module")
def sim():
    sim = TabletopSim(16)
    yield sim
    sim.close()


def drive(sim: TabletopSim, seed: int, noise: float, steps: int = 120) -> int:
    """Let the expert label, execute its rows with noise on four of ten; the steps used."""
    rng, leader = np.random.default_rng(seed), expert(sim)
    for step in range(steps):
        row = leader.act()
        if rng.random() < 0.4:
            row = row + noise * np.concatenate([rng.normal(0, 0.02, 3), [0, 0], rng.normal(0, 0.03, 1), [0]])
        sim.advance(Command(sim.time_ns, row[:6] / 0.05, float(np.clip(row[6], 0, 1))), DT_NS)
        if sim.success():
            return step + 1
    return steps


def test_nine_tasks_of_four_families_with_three_phrasings_each():
    assert len(TASKS) == 9
    assert len({task.family for task in TASKS.values()}) == 4
    assert all(len(set(task.phrases)) == 3 for task in TASKS.values())


def test_no_sentence_means_two_tasks():
    spoken = [(phrase.format(colour=colour), name) for name, task in TASKS.items() for phrase in task.phrases
              for colour in ([task.colour] if task.colour else list(BLOCKS))]
    by_sentence = {sentence: {name for said, name in spoken if said == sentence} for sentence, _ in spoken}
    assert all(len(names) == 1 for names in by_sentence.values())


@pytest.mark.parametrize("task", TASKS)
def test_the_words_are_drawn_by_seed_and_name_the_target(sim, task):
    said = set()
    for seed in range(24):
        episode = sim.reset(task, seed)
        said.add(episode.instruction)
        named = sim.goal.target.removesuffix("_block").split("_")[0]
        assert named in episode.instruction
        assert sim.reset(task, seed) == episode
    open_colour = task.startswith("push")
    assert len(said) >= (7 if open_colour else 3)


@pytest.mark.parametrize("task", TASKS)
def test_the_start_is_not_a_success_and_rests(sim, task):
    for seed in range(8):
        sim.reset(task, seed)
        places = sim.positions()
        blocks = [places[f"{colour}_block"] for colour in BLOCKS]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(blocks, 2)) > BLOCK_GAP_M - 1e-9
        sim.advance(None, 10 * DT_NS)
        assert not sim.success()
        moved = [np.linalg.norm(sim.positions()[name] - place) for name, place in places.items()]
        assert max(moved) < 1.5e-3


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_does_its_task_through_the_guard(sim, contract, task):
    for seed in (100, 101, 102):
        result = demonstrate(sim, contract, task, seed)
        assert result.success, f"seed {seed}: {result.reason}"
        assert result.steps < 50
        assert np.allclose(result.commands, result.requested)  # the guard had nothing to reduce


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_recovers_from_noise(sim, task):
    won = 0
    for seed in range(4):
        sim.reset(task, 200 + seed)
        drive(sim, seed, noise=0.5)
        won += sim.success()
    assert won >= 3


def test_rows_are_smooth_and_short(sim):
    for task in TASKS:
        sim.reset(task, 7)
        leader = expert(sim)
        for _ in range(40):
            row = leader.act()
            assert row.shape == (7,) and row.dtype == np.float64
            assert np.linalg.norm(row[:3]) <= MAX_STEP_M + 1e-12
            assert np.linalg.norm(row[3:6]) <= MAX_TURN_RAD + 1e-12
            assert row[6] in (0.0, 1.0)
            sim.advance(Command(sim.time_ns, row[:6] / 0.05, row[6]), DT_NS)


def hold(sim: TabletopSim, periods: int = 4) -> bool:
    sim.advance(None, periods * DT_NS)
    return sim.success()


def move_block(sim: TabletopSim, colour: str, offset: tuple[float, float, float]) -> None:
    position, yaw = sim.scene.block_pose(colour)
    sim.scene.put_block(colour, position + offset, yaw)


def test_lifting_another_block_or_for_an_instant_does_not_count(sim):
    sim.reset("lift_red_block", 0)
    move_block(sim, "blue", (0, 0, 0.5))
    assert not hold(sim)
    move_block(sim, "red", (0, 0, 0.07))  # falls back to the table at once
    assert not hold(sim, 10)


@pytest.mark.parametrize(("task", "offset", "counts"), [
    ("push_left", (0.0, -0.09, 0.0), True),
    ("push_left", (0.0, 0.09, 0.0), False),
    ("push_left", (0.0, -0.07, 0.0), False),
    ("push_right", (0.0, 0.09, 0.0), True),
    ("push_right", (0.0, -0.09, 0.0), False),
    ("push_right", (0.09, 0.09, 0.0), False),
    ("push_right", (0.0, 0.09, 0.06), False),
])
def test_a_push_counts_on_the_table_to_its_side_without_drift(sim, task, offset, counts):
    sim.reset(task, 1)
    colour = sim.goal.target.removesuffix("_block")
    others = [other for other in BLOCKS if other != colour]
    for place, other in enumerate(others):
        sim.scene.put_block(other, np.array([0.2, -0.4 + 0.1 * place, 0.025]), 0.0)  # out of the way
    held = offset[2] > 0
    if held:
        sim.scene.model.opt.gravity[2] = 0.0
    try:
        move_block(sim, colour, offset)
        assert hold(sim) is counts
    finally:
        sim.scene.model.opt.gravity[2] = -9.81


def test_success_latches(sim):
    sim.reset("push_left", 1)
    move_block(sim, sim.goal.target.removesuffix("_block"), (0.0, -0.09, 0.0))
    assert hold(sim)
    move_block(sim, sim.goal.target.removesuffix("_block"), (0.0, 0.09, 0.0))
    assert hold(sim)
    sim.reset("push_left", 1)
    assert not sim.success()


@pytest.mark.parametrize(("task", "opening_m", "counts"), [
    ("open_drawer", 0.10, True),
    ("open_drawer", 0.05, False),
    ("close_drawer", 0.05, False),
    ("close_drawer", 0.005, True),
])
def test_the_drawer_counts_by_its_opening(sim, task, opening_m, counts):
    sim.reset(task, 0)
    sim.scene.data.joint("drawer").qpos[0] = opening_m
    assert hold(sim) is counts


def test_an_expert_without_a_task_is_refused(sim):
    sim.scatter(np.random.default_rng(0))
    with pytest.raises(VlaError, match="without a task.*call reset"):
        expert(sim)


def test_the_table_shows_rates_steps_and_failures(sim, contract):
    won = demonstrate(sim, contract, "press_button", 0)
    lost = demonstrate(sim, contract, "press_button", 1, time_limit_s=0.2)
    row = table({"press_button": [won, lost]}).splitlines()[-1]
    assert row.startswith("| press_button | 1/2 |") and row.endswith("| 1 |")

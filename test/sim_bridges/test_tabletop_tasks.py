"""Tasks, words, success oracles and experts of the tabletop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sim_bridges.tabletop import TASKS, TabletopSim, expert
from sim_bridges.tabletop.demonstration import demonstrate
from sim_bridges.tabletop.gl import mujoco
from sim_bridges.tabletop.motion import MAX_STEP_M, MAX_TURN_RAD
from sim_bridges.tabletop.scene import BLOCK_GAP_M, BLOCK_HALF_M, BLOCKS
from sim_bridges.tabletop.sim import TOOL_DOWN
from sim_bridges.tabletop.tasks import EXTRA_TASKS, draw_goal
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


def test_fifteen_tasks_of_eight_families_with_three_phrasings_each():
    assert len(TASKS) == 15
    assert len({task.family for task in TASKS.values()}) == 8
    assert all(len(set(task.phrases)) == 3 for task in TASKS.values())


def test_no_sentence_means_two_tasks():
    pairs = list(itertools.permutations(BLOCKS, 2))
    spoken = {(phrase.format(colour=task.colour or colour, other=other), name) for name, task in TASKS.items()
              for phrase in task.phrases for colour, other in pairs}
    by_sentence = {sentence: {name for said, name in spoken if said == sentence} for sentence, _ in spoken}
    assert all(len(names) == 1 for names in by_sentence.values())


def test_colours_are_drawn_or_given_and_differ():
    rng = np.random.default_rng(0)
    goals = [draw_goal("stack_blocks", rng) for _ in range(40)]
    assert all(goal.colour != goal.other and {goal.colour, goal.other} <= set(BLOCKS) for goal in goals)
    assert len({(goal.colour, goal.other) for goal in goals}) == 12
    goal = draw_goal("stack_blocks", rng, ("red", "blue"))
    assert (goal.target, goal.destination) == ("red_block", "blue_block")
    for colours in (("red",), ("red", "red"), ("red", "pink")):
        with pytest.raises(VlaError, match="stack_blocks: got the colours.*expected 2 different ones"):
            draw_goal("stack_blocks", rng, colours)


@pytest.mark.parametrize("task", TASKS)
def test_the_words_are_drawn_by_seed_and_name_the_target(sim, task):
    said = set()
    for seed in range(24):
        episode = sim.reset(task, seed)
        said.add(episode.instruction)
        named = (sim.goal.colour, sim.goal.other) if sim.goal.colour else (task.split("_")[-1],)
        alike = {"light": ("light", "lamp")}
        assert all(any(word in episode.instruction for word in alike.get(name, (name,))) for name in named)
        assert sim.reset(task, seed) == episode
    assert len(said) >= (7 if TASKS[task].named else 3)


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
        assert result.steps < 65
        kept = np.isclose(result.commands, result.requested).all(axis=1)
        assert kept.mean() > 0.9  # the guard has next to nothing to reduce


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


def test_extra_tasks_are_played_where_they_are_named_alone(sim, contract):
    assert not set(EXTRA_TASKS) & set(TASKS) and sim.extra_tasks == tuple(EXTRA_TASKS) and sim.tasks == tuple(TASKS)
    asked = {step.task for seed in range(40) for step in sim.draw_chain(seed).steps}
    assert not asked & set(EXTRA_TASKS)
    for task in EXTRA_TASKS:
        won = [demonstrate(sim, contract, task, seed) for seed in range(20)]
        assert sum(result.success for result in won) >= 19
        assert len({result.instruction for result in won}) >= 7
        sim.reset(task, 0)
        assert not hold(sim, 10)


def test_a_block_at_the_lamp_counts_when_it_lies_there_let_go(sim):
    sim.reset("bring_to_lamp", 3)
    colour, lamp = sim.goal.colour, sim.positions()["light"]
    put(sim, colour, "lamp_front", (-0.05, 0.0, BLOCK_HALF_M))
    assert np.linalg.norm((sim.positions()[f"{colour}_block"] - lamp)[:2]) > 0.15 and not hold(sim, 6)
    put(sim, colour, "lamp_front", (0.0, 0.0, 0.08))
    assert not sim.success()  # in the air
    put(sim, colour, "lamp_front", (0.0, 0.0, BLOCK_HALF_M))
    assert hold(sim, 6)
    sim.reset("bring_to_lamp", 3)
    other = next(name for name in BLOCKS if name != colour)
    put(sim, other, "lamp_front", (0.0, 0.0, BLOCK_HALF_M))
    assert not hold(sim, 6)


def hold(sim: TabletopSim, periods: int = 4) -> bool:
    sim.advance(None, periods * DT_NS)
    return sim.success()


def move_block(sim: TabletopSim, colour: str, offset: tuple[float, float, float]) -> None:
    position, yaw = sim.scene.block_pose(colour)
    sim.scene.put_block(colour, position + offset, yaw)


def put(sim: TabletopSim, colour: str, place: str, offset: tuple[float, float, float]) -> None:
    """Teleport a block to where a thing is, `offset` m beside it."""
    sim.scene.put_block(colour, sim.positions()[place] + offset, 0.0)
    mujoco.mj_forward(sim.scene.model, sim.scene.data)


def grip(sim: TabletopSim, colour: str) -> None:
    """Put a block between the fingers, high over the table, and close them on it."""
    sim.arm.teleport(np.array([0.45, 0.0, 0.2]), TOOL_DOWN, BLOCK_HALF_M)
    sim.scene.put_block(colour, sim.arm.position, 0.0)
    sim.arm.control(None, 0.0)


def test_lifting_another_block_or_for_an_instant_does_not_count(sim):
    sim.reset("lift_red_block", 0)
    grip(sim, "blue")
    assert not hold(sim)
    sim.reset("lift_red_block", 0)
    move_block(sim, "red", (0, 0, 0.07))  # falls back to the table at once
    assert not hold(sim, 10)
    sim.reset("lift_red_block", 0)
    grip(sim, "red")
    assert hold(sim, 6)


def test_a_block_on_top_of_others_is_not_lifted(sim):
    sim.reset("lift_red_block", 0)
    put(sim, "green", "blue_block", (0.0, 0.0, 0.05))
    put(sim, "red", "green_block", (0.0, 0.0, 0.05))
    assert not hold(sim, 6)


def test_a_slide_counts_on_its_own_pad_and_let_go(sim):
    for pad, counts in (("white", True), ("black", False)):
        sim.reset("slide_to_white_pad", 2)
        put(sim, sim.goal.colour, f"{pad}_pad", (0.02, -0.02, BLOCK_HALF_M))
        assert hold(sim, 6) is counts
    sim.reset("slide_to_white_pad", 2)
    sim.arm.teleport(sim.positions()["white_pad"] + [0.0, 0.0, BLOCK_HALF_M], TOOL_DOWN, BLOCK_HALF_M)
    put(sim, sim.goal.colour, "white_pad", (0.0, 0.0, BLOCK_HALF_M))
    sim.arm.control(None, 0.0)
    assert not hold(sim, 6)  # there, but held


def test_another_block_on_the_pad_does_not_count(sim):
    sim.reset("slide_to_black_pad", 2)
    other = next(colour for colour in BLOCKS if colour != sim.goal.colour)
    put(sim, other, "black_pad", (0.0, 0.0, BLOCK_HALF_M))
    assert not hold(sim, 6)


def test_a_stack_counts_the_right_way_round_and_let_go(sim):
    for upside_down in (False, True):
        sim.reset("stack_blocks", 3)
        top, base = (sim.goal.other, sim.goal.colour) if upside_down else (sim.goal.colour, sim.goal.other)
        put(sim, top, f"{base}_block", (0.008, 0.0, 2 * BLOCK_HALF_M))
        assert hold(sim, 6) is not upside_down


def test_a_block_is_stored_inside_the_drawer_not_before_or_upon_it(sim):
    for offset, counts in (((0.0, 0.0, 0.03), True), ((0.0, -0.10, 0.03), False), ((0.0, 0.1, 0.14), False)):
        sim.reset("put_in_drawer", 1)
        put(sim, sim.goal.colour, "drawer_inside", offset)
        assert hold(sim, 8) is counts
    sim.reset("put_in_drawer", 1)
    other = next(colour for colour in BLOCKS if colour != sim.goal.colour)
    put(sim, other, "drawer_inside", (0.0, 0.0, 0.03))
    assert not hold(sim, 8)


def push_button(sim: TabletopSim, depth_m: float) -> None:
    """Hold the button at a depth for one control period and let it act."""
    sim.scene.data.joint("button").qpos[0] = depth_m
    sim.scene.switch_light()


def test_the_button_switches_once_a_push(sim):
    sim.reset("turn_on_light", 0)
    assert not sim.scene.light_on
    for depth_m, lit in ((0.005, False), (0.012, True), (0.015, True), (0.006, True), (0.012, True), (0.002, True),
                         (0.012, False)):
        push_button(sim, depth_m)
        assert sim.scene.light_on is lit


@pytest.mark.parametrize("task", ["turn_on_light", "turn_off_light"])
def test_the_light_starts_as_it_shall_not_be_and_counts_when_it_stays(sim, task):
    sim.reset(task, 4)
    assert sim.scene.light_on is (task == "turn_off_light") and not hold(sim, 6)
    push_button(sim, 0.014)
    assert hold(sim, 6)


def test_the_lamp_is_seen(sim):
    sim.reset("turn_on_light", 0)
    dark = sim.render("static").astype(int)
    sim.scene.light_on = True
    assert np.abs(sim.render("static") - dark).max() > 60


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
    ("open_drawer", 0.11, True),
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


def test_an_expert_puts_down_what_the_task_does_not_want(sim, contract):
    sim.reset("press_button", 0)
    grip(sim, "red")
    drive(sim, 0, noise=0.0)
    assert sim.success()
    assert np.isclose(sim.positions()["red_block"][2], BLOCK_HALF_M, atol=2e-3)

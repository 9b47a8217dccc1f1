"""Chains: drawn by rules, the same for a seed; the world goes on between tasks; how far a policy gets."""

from __future__ import annotations

import numpy as np
import pytest

from sim_bridges.chains import Chain, ChainResult, Step, draw_chain, summarise_chains
from sim_bridges.results import EpisodeResult
from sim_bridges.tabletop import TASKS, TabletopSim
from sim_bridges.tabletop.chain_twin import DRAWER, PUSHED, STACKED, TabletopState, TabletopTwin
from sim_bridges.tabletop.demonstration import demonstrate_chain
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_contract

TWIN = TabletopTwin()
GOLDEN = [
    ["lift_red_block", "turn_off_light", "lift_green_block", "open_drawer", "put_in_drawer green"],
    ["push_right yellow", "lift_red_block", "slide_to_white_pad red", "open_drawer", "lift_blue_block"],
]


@pytest.fixture(scope="module")
def sim():
    sim = TabletopSim(16)
    yield sim
    sim.close()


def possible(state: TabletopState, previous: Step | None = None) -> set[tuple[str, ...]]:
    return {(step.task, *step.choice) for step, _ in TWIN.options(state, previous)}


def after(state: TabletopState, *step: str) -> TabletopState:
    return {(found.task, *found.choice): new for found, new in TWIN.options(state, None)}[step]


# ---- the rules --------------------------------------------------------------------------------------------------


def test_drawer_and_light_can_only_be_changed():
    shut = possible(TabletopState(drawer_open=False, light_on=True))
    assert {("open_drawer",), ("turn_off_light",), ("press_button",)} <= shut
    assert not {("close_drawer",), ("turn_on_light",)} & shut
    assert not any(step[0] == "put_in_drawer" for step in shut)


def test_a_stored_block_stays_and_the_drawer_takes_one():
    state = after(TabletopState(True, False), "put_in_drawer", "red")
    assert state.place("red") == DRAWER
    assert not any("red" in " ".join(step) for step in possible(state))
    assert not any(step[0] == "put_in_drawer" for step in possible(state))


def test_a_held_block_is_put_back_before_anything_else():
    state = after(TabletopState(False, False), "lift_blue_block")
    assert state.held == "blue"
    assert ("stack_blocks", "blue", "red") in possible(state) and ("stack_blocks", "red", "blue") in possible(state)
    assert not any(step[0].startswith(("lift", "push")) for step in possible(state))
    assert after(state, "press_button").held is None


def test_beside_a_stack_only_its_top_is_taken():
    state = after(TabletopState(True, False), "stack_blocks", "red", "green")
    assert state.place("red") == STACKED and state.base == "green"
    assert {step[-1] for step in possible(state) if step[0] == "put_in_drawer"} == {"red"}
    assert not any(step[0].startswith("push") for step in possible(state))
    assert after(state, "slide_to_white_pad", "red").base is None


def test_the_top_of_a_stack_in_the_hand_must_go_somewhere():
    state = after(after(TabletopState(True, False), "stack_blocks", "red", "green"), "lift_red_block")
    assert {step[1] for step in possible(state)} == {"red"}


def test_pushed_blocks_stay_and_an_open_drawer_is_in_the_way_on_the_right():
    state = after(TabletopState(False, False), "push_left", "red")
    assert state.place("red") == PUSHED
    assert not any("red" in " ".join(step) for step in possible(state))
    assert ("push_right", "green") in possible(state)
    assert not any(step[0] == "push_right" for step in possible(TabletopState(True, False)))


def test_a_pad_takes_one_block():
    state = after(TabletopState(False, False), "slide_to_white_pad", "red")
    assert not any(step[0] == "slide_to_white_pad" for step in possible(state))
    assert ("slide_to_black_pad", "red") in possible(state)


# ---- drawing ----------------------------------------------------------------------------------------------------


def test_the_first_chains_are_these(sim):
    """They are what a success rate is measured on: a change of them is a change of the benchmark."""
    chains = [sim.draw_chain(seed) for seed in (1_000_000, 1_000_001)]
    drawn = [[" ".join((step.task, *step.choice)) for step in chain.steps] for chain in chains]
    assert drawn == GOLDEN


def test_chains_keep_the_rules_and_vary(sim):
    asked = set()
    for seed in range(60):
        chain = sim.draw_chain(seed)
        assert chain == sim.draw_chain(seed) and len(chain.steps) == 5
        state, previous = chain.start, None
        for step in chain.steps:
            options = dict(TWIN.options(state, previous))
            assert step in options
            state, previous = options[step], step
            asked.add(step.task)
    assert asked == set(TASKS)


def test_a_twin_without_a_way_on_is_refused():
    class Stuck:
        def start(self, rng: np.random.Generator) -> int:
            return 0

        def options(self, state: int, previous: Step | None) -> list[tuple[Step, int]]:
            return [(Step("go"), state + 1)] if state < 3 else []

    assert len(draw_chain(Stuck(), 0, length=3).steps) == 3
    with pytest.raises(VlaError, match="got no 5 steps in a row"):
        draw_chain(Stuck(), 0)


# ---- the world goes on ------------------------------------------------------------------------------------------


def test_the_next_task_leaves_world_arm_and_time(sim):
    chain = sim.draw_chain(4)
    first = sim.begin_chain(chain)
    sim.advance(None, 200_000_000)
    before = [sim.scene.data.qpos.copy(), sim.scene.data.qvel.copy(), sim.time_ns, sim.scene.light_on]
    second = sim.next_task()
    assert (first.task, second.task) == (chain.steps[0].task, chain.steps[1].task)
    assert second.instruction != first.instruction and not sim.success()
    assert np.array_equal(sim.scene.data.qpos, before[0]) and np.array_equal(sim.scene.data.qvel, before[1])
    assert (sim.time_ns, sim.scene.light_on) == tuple(before[2:])
    for _ in range(3):
        sim.next_task()
    with pytest.raises(VlaError, match="whose tasks were all asked for"):
        sim.next_task()
    sim.reset("press_button", 0)
    with pytest.raises(VlaError, match="got no chain"):
        sim.next_task()


def test_a_chain_begins_the_same_whatever_was_before(sim):
    chain = sim.draw_chain(7)
    starts = []
    for other in (1, 2):
        sim.begin_chain(sim.draw_chain(other))
        sim.begin_chain(chain)
        starts.append((sim.scene.data.qpos.copy(), sim.scene.light_on, sim.goal))
    assert np.array_equal(starts[0][0], starts[1][0]) and starts[0][1:] == starts[1][1:]
    assert starts[0][1] == chain.start.light_on
    assert (sim.scene.drawer_opening_m > 0.05) == chain.start.drawer_open


def test_experts_carry_out_whole_chains(sim):
    contract = load_contract(find_contract("tabletop"))
    assert [demonstrate_chain(sim, contract, seed).solved for seed in range(4)] == [5] * 4


# ---- counting ---------------------------------------------------------------------------------------------------


def played(*successes: bool) -> ChainResult:
    empty = np.empty((0, 7))
    episodes = tuple(EpisodeResult("go", 0, "go", success, "", "", 1, 1.0, 1.0, empty, empty) for success in successes)
    return ChainResult(Chain(0, None, (Step("go"),) * 3), episodes)


def test_success_in_a_row_and_its_average():
    outcomes = [(True, True, True), (True, False), (False,), (True, True, False)]
    summary = summarise_chains([played(*successes) for successes in outcomes])
    assert [row["successes"] for row in summary["in_a_row"]] == [3, 2, 1]
    assert summary["average_length"] == pytest.approx(6 / 4)
    assert summary["in_a_row"][0]["interval_95"][0] < 0.75 < summary["in_a_row"][0]["interval_95"][1]
    assert [row["solved"] for row in summary["rows"]] == [3, 1, 0, 2]

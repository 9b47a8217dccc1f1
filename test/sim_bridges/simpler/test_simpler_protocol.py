"""SIMPLER's published protocol as data: how many episodes, which they are, what averages are made of them."""

from __future__ import annotations

import numpy as np
import pytest
from simpler_double import RECORD

from sim_bridges.evaluation.benchmarks import find_benchmark
from sim_bridges.simpler.addresses import find_scene
from sim_bridges.simpler.benchmark import CAMERA_VARIANTS, TWIN_SET, VARIANT_AGGREGATION, VISUAL_MATCHING
from sim_bridges.simpler.protocol import GROUPS, TASKS, spread
from sim_bridges.simpler.robots import GOOGLE, WIDOWX
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.resources import find_contract, find_sim_contract

WIDOWX_CONTRACT = load_contract(find_contract("simpler_widowx"))
GOOGLE_CONTRACT = load_contract(find_contract("simpler_google"))


@pytest.mark.parametrize(("benchmark", "contract", "episodes"), [
    (VISUAL_MATCHING, WIDOWX_CONTRACT, 4 * 24),
    (VISUAL_MATCHING, GOOGLE_CONTRACT, 3 * 4 * 25 + 4 * 60 + 6 * 4 * 9 + 4 * 27),
    (VARIANT_AGGREGATION, GOOGLE_CONTRACT, 3 * 9 * 25 + 8 * 60 + 6 * 7 * 9 + 7 * 27),
    (CAMERA_VARIANTS, GOOGLE_CONTRACT, 3 * 2 * 25 + 2 * 60),
    (TWIN_SET, WIDOWX_CONTRACT, 3 * 24 + 64)])
def test_a_benchmark_has_as_many_episodes_as_was_published(benchmark, contract, episodes) -> None:
    trials = benchmark.trials(contract, "all", 0, None)
    assert len(trials) == episodes == len({trial.name for trial in trials})


def test_groups_and_shares_of_a_benchmark() -> None:
    trials = VISUAL_MATCHING.trials(GOOGLE_CONTRACT, "google_robot_open_drawer", 0, 2)
    tasks = list(dict.fromkeys(trial.task.partition("/")[0] for trial in trials))
    assert tasks == [f"google_robot_open_{drawer}_drawer" for drawer in ("top", "middle", "bottom")]
    assert len(trials) == 3 * 4 * 2 and {trial.seed for trial in trials} == {0, 1}
    again = VISUAL_MATCHING.trials(GOOGLE_CONTRACT, "google_robot_move_near", 60, None)
    assert [trial.seed for trial in again[:2]] == [60, 61]  # a repetition has names of its own
    assert find_scene(again[0].task, 60, GOOGLE).start == find_scene(again[0].task, 0, GOOGLE).start


@pytest.mark.parametrize(("benchmark", "contract", "tasks", "words"), [
    (VISUAL_MATCHING, WIDOWX_CONTRACT, "widowx_stack_cubes", "did you mean 'widowx_stack_cube'"),
    (VISUAL_MATCHING, WIDOWX_CONTRACT, "google_robot_move_near", "got 'google_robot_move_near'; .*known: widowx"),
    (CAMERA_VARIANTS, GOOGLE_CONTRACT, "google_robot_open_top_drawer", "known: google_robot_pick"),
    (VARIANT_AGGREGATION, WIDOWX_CONTRACT, "all", "variant_aggregation: got robot widowx, expected google"),
    (TWIN_SET, GOOGLE_CONTRACT, "all", "twins: got robot google, expected widowx")])
def test_what_a_benchmark_does_not_have_is_refused(benchmark, contract, tasks, words) -> None:
    with pytest.raises(ConfigError, match=words):
        benchmark.trials(contract, tasks, 0, None)


def test_an_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'visual_match' for simulator 'simpler'; did you mean 'visual_matching'"):
        find_benchmark("simpler", "visual_match")
    with pytest.raises(ConfigError, match="for simulator 'tabletop'; known: none"):
        find_benchmark("tabletop", "visual_matching")


def test_averages_are_means_over_variants_then_over_groups() -> None:
    rates = {f"google_robot_pick_{way}_coke_can/variant_aggregation/{variant}": rate
             for way, pair in {"horizontal": (1.0, 0.5), "vertical": (0.0, 0.5), "standing": (0.25, 0.75)}.items()
             for variant, rate in zip(("base", "darker"), pair, strict=True)}
    rates |= {"google_robot_move_near/variant_aggregation/base": 1.0,
              "google_robot_open_top_drawer/variant_aggregation/base": 1.0}  # two drawers are missing: no average
    found = {average.name: (average.success_rate, average.of) for average in VARIANT_AGGREGATION.averages(rates)}
    assert found == {
        "google_robot_pick_horizontal_coke_can": (0.75, 2), "google_robot_pick_vertical_coke_can": (0.25, 2),
        "google_robot_pick_standing_coke_can": (0.5, 2), "google_robot_open_top_drawer": (1.0, 1),
        "google_robot_pick_coke_can": (0.5, 6), "google_robot_move_near": (1.0, 1), "average": (0.75, 2)}


def test_starts_are_on_the_published_grids_to_the_last_bit() -> None:
    starts = TASKS["google_robot_pick_standing_coke_can"].sets["visual_matching"][0].starts
    grid = [(x, y) for x in np.linspace(-0.35, -0.12, 5) for y in np.linspace(-0.02, 0.42, 5)]
    assert [start.object_xy_m for start in starts] == grid
    assert spread(0.65, 0.65, 1) == (0.65,)


def test_limits_and_instructions_of_tasks() -> None:
    assert {task.steps for task in TASKS.values() if task.robot is WIDOWX} == {60, 120}
    assert {name: task.steps for name, task in TASKS.items() if task.robot is GOOGLE} == {
        name: {"pick": 80, "move": 80, "open": 113, "close": 113, "place": 200}[name.split("_")[2]]
        for name in TASKS if name.startswith("google")}
    assert [name for name, task in TASKS.items() if task.first_steps] == [
        "google_robot_place_apple_in_closed_top_drawer"]
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(TASKS)
    assert all(address.partition("/")[0] in TASKS for address in RECORD)


def test_an_address_names_a_set_and_a_variant() -> None:
    scene = find_scene("google_robot_move_near/variant_aggregation/darker", 61, GOOGLE)
    assert (scene.variant.name, scene.start.layout) == ("darker", 1)
    assert scene.variant.build == {"slightly_darker_lighting": True}
    whole = find_scene("google_robot_pick_vertical_coke_can", 26, GOOGLE)  # beyond the 25 of the first variant
    assert whole.set == "visual_matching" and whole.variant.name == "tabletop_colours_1"
    assert whole.start.object_xy_m == (-0.35, 0.09) and whole.start.overlay == "google_coke_can_real_eval_1.png"


@pytest.mark.parametrize(("address", "words"), [
    ("widowx_stack_cubes", "did you mean 'widowx_stack_cube'"),
    ("widowx_stack_cube/twin", "set 'twin' of task widowx_stack_cube; did you mean 'twins'"),
    ("widowx_stack_cube/variant_aggregation", "known: visual_matching, twins"),
    ("widowx_stack_cube/twins/bass", "did you mean 'base'"),
    ("widowx_stack_cube/twins/base/1", "expected TASK, TASK/SET or TASK/SET/VARIANT"),
    ("google_robot_move_near", "contract of robot widowx, expected that of google; use .*simpler_google.yaml")])
def test_a_wrong_address_is_refused(address: str, words: str) -> None:
    with pytest.raises(VlaError, match=words):
        find_scene(address, 0, WIDOWX)


def test_the_tasks_say_which_contract() -> None:
    assert find_sim_contract("simpler", "widowx_stack_cube, widowx_carrot_on_plate/twins").stem == "simpler_widowx"
    assert find_sim_contract("simpler", "google_robot_move_near").stem == "simpler_google"
    assert find_sim_contract("calvin", "all").stem == "calvin"
    for tasks in ("all", "", "widowx_stack_cube,google_robot_move_near", "bidowx_stack_cube"):
        with pytest.raises(ConfigError, match="name it: robot simpler_google or simpler_widowx"):
            find_sim_contract("simpler", tasks)

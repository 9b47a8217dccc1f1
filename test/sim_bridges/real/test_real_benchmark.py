"""Benchmarks on a real robot: the shipped file, the plan that comes of one, and what is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sim_bridges.real.benchmark import Benchmark, identity, load_benchmark, plan, select
from vla_policy.errors import ConfigError
from vla_policy.resources import find_real_benchmark
from vla_policy.strict import parse

DATA = {
    "name": "two",
    "time_limit_s": 20,
    "settings": {
        "simple": {"change": "Nothing else."},
        "unseen_object": {"change": "Take the other thing.", "own_instruction": True},
    },
    "tasks": {
        "open_drawer": {
            "instruction": "open the drawer",
            "setup": "The drawer is shut.",
            "success": "It is open.",
            "time_limit_s": 5,
            "settings": {"unseen_object": None},
        },
        "lift": {
            "instruction": "lift the block",
            "setup": "The block lies there.",
            "success": "It is up.",
            "settings": {"unseen_object": {"instruction": "lift the banana", "setup": "The banana lies there."}},
        },
    },
}


def benchmark(**changes: Any) -> Benchmark:
    return parse(Benchmark, DATA | changes, "test", ConfigError)


def names(benchmark: Benchmark) -> list[str]:
    return [trial.trial.name for trial in plan(benchmark)]


def test_the_shipped_benchmark_has_twenty_tasks_in_five_settings() -> None:
    shipped = load_benchmark(find_real_benchmark("real"))
    assert len(shipped.tasks) == 20
    assert list(shipped.settings) == [
        *("simple", "unseen_distractor", "unseen_background", "unseen_object", "novel_skill_description")
    ]
    trials = plan(shipped)
    left_out = sum(task.settings.get("unseen_object", "") is None for task in shipped.tasks.values())
    assert len(trials) == 100 - left_out
    assert len({trial.trial.name for trial in trials}) == len(trials)
    for task in shipped.tasks:  # the unseen settings differ from the simple one in what they mean to vary
        said = {trial.setting: trial.instruction for trial in trials if trial.task == task}
        assert said["simple"] == said["unseen_distractor"] == said["unseen_background"]
        assert said["novel_skill_description"] != said["simple"] != said.get("unseen_object")


def test_a_plan_goes_setting_by_setting_or_task_by_task() -> None:
    assert names(benchmark()) == ["open_drawer/simple/0", "lift/simple/0", "lift/unseen_object/0"]
    assert names(benchmark(order="tasks", rollouts=2)) == [
        *("open_drawer/simple/0", "open_drawer/simple/1"),
        *("lift/simple/0", "lift/simple/1", "lift/unseen_object/0", "lift/unseen_object/1"),
    ]


def test_a_trial_says_what_to_do_and_for_how_long() -> None:
    drawer, lift, banana = plan(benchmark())
    assert (drawer.instruction, drawer.time_limit_s, lift.time_limit_s) == ("open the drawer", 5, 20)
    assert banana.setup == ("The banana lies there.", "Take the other thing.")
    assert (banana.instruction, banana.success) == ("lift the banana", "It is up.")


def test_some_tasks_and_settings_are_chosen() -> None:
    trials = plan(benchmark())
    assert select(trials) == trials
    assert select(trials, tasks="lift", settings="simple") == (trials[1],)
    with pytest.raises(ConfigError, match="--tasks: got 'lfit'; did you mean 'lift'"):
        select(trials, tasks="lfit")
    with pytest.raises(ConfigError, match="--settings: got 'unseen_objct'; did you mean 'unseen_object'"):
        select(trials, settings="unseen_objct")
    with pytest.raises(ConfigError, match="no trial of open_drawer in unseen_object"):
        select(trials, "open_drawer", "unseen_object")


def test_what_the_robot_is_told_makes_the_run_and_what_the_operator_is_told_does_not() -> None:
    lift = DATA["tasks"]["lift"]
    same = benchmark(tasks=DATA["tasks"] | {"lift": lift | {"setup": "The block lies anywhere."}}, order="tasks")
    other = benchmark(tasks=DATA["tasks"] | {"lift": lift | {"instruction": "raise the block"}})
    assert identity(benchmark()) == identity(same) != identity(other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rollout": 2}, "unknown key 'rollout'; did you mean 'rollouts'"),
        ({"time_limit_s": 0}, "time_limit_s: got 0"),
        ({"order": "task"}, "order: got 'task'"),
        ({"settings": {}}, "settings: got {}"),
        ({"settings": {"un seen": {"change": "x"}}}, "un seen"),
        ({"settings": {"simple": {"change": "x"}}}, "got 'unseen_object'; known: simple"),
        ({"tasks": {"lift": DATA["tasks"]["lift"] | {"settings": {}}}},
         "tasks.lift.settings.unseen_object: got no instruction, expected one"),
        ({"tasks": {"lift": DATA["tasks"]["lift"] | {"success": " "}}}, "tasks.lift.success"),
    ],
)  # fmt: skip
def test_mistakes_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="^test: ") as told:
        benchmark(**changes)
    assert words in str(told.value)


def test_a_file_is_read_and_a_wrong_name_gets_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(DATA, sort_keys=False))
    assert plan(load_benchmark(find_real_benchmark(str(tmp_path / "mine.yaml")))) == plan(benchmark())
    with pytest.raises(ConfigError, match="did you mean 'real'"):
        find_real_benchmark("reel")

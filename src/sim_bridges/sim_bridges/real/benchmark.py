"""A YAML file of tasks and settings in, the trials of a benchmark on a real robot in their order out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from sim_bridges.evaluation.trials import Trial
from vla_policy.errors import ConfigError, nearest
from vla_policy.strict import StrictModel, load_yaml

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]  # stands in the names of files
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Order(StrEnum):
    """What changes last: the setting (one table cloth for all tasks), or the task."""

    SETTINGS = "settings"
    TASKS = "tasks"


class Setting(StrictModel):
    """What is varied. change: what the operator does for it. own_instruction: each task says its own words for it."""

    change: Text
    own_instruction: bool = False


class Variant(StrictModel):
    """What differs for one task in one setting; what is left out stays as in the task."""

    instruction: Text | None = None
    setup: Text | None = None
    success: Text | None = None


class Task(StrictModel):
    """What the robot is told, how the scene is made, and when the operator shall call it a success.

    settings: what differs in some settings; null where the task is not played in one.
    """

    instruction: Text
    setup: Text
    success: Text
    time_limit_s: Annotated[float, Field(gt=0)] | None = None
    settings: dict[Name, Variant | None] = {}


class Benchmark(StrictModel):
    """A benchmark. rollouts: of each task in each setting. time_limit_s: of a run, where the task names no other."""

    name: Text
    time_limit_s: Annotated[float, Field(gt=0)]
    rollouts: Annotated[int, Field(ge=1)] = 1
    order: Order = Order.SETTINGS
    settings: Annotated[dict[Name, Setting], Field(min_length=1)]
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]

    @model_validator(mode="after")
    def _settings_are_known_and_said(self) -> Self:
        for name, task in self.tasks.items():
            for setting in task.settings:
                if setting not in self.settings:
                    raise ValueError(f"tasks.{name}.settings: got '{setting}'; {nearest(setting, self.settings)}")
            for setting, what in self.settings.items():
                variant = task.settings.get(setting, Variant())
                if what.own_instruction and variant is not None and variant.instruction is None:
                    raise ValueError(
                        f"tasks.{name}.settings.{setting}: got no instruction, expected one, because this setting has "
                        "own_instruction; write one, or null where the task is not played"
                    )
        return self


@dataclass(frozen=True, slots=True)
class RealTrial:
    """One run of the robot. setup: what the operator does before it, step by step. number: of the rollout, from 0."""

    task: str
    setting: str
    number: int
    instruction: str
    setup: tuple[str, ...]
    success: str
    time_limit_s: float

    @property
    def trial(self) -> Trial:
        """As the store knows it."""
        return Trial(f"{self.task}/{self.setting}", self.number)


def load_benchmark(path: Path) -> Benchmark:
    """Raises: ConfigError for a file that is missing or wrong, naming every mistake."""
    return load_yaml(Benchmark, path, ConfigError)


def plan(benchmark: Benchmark) -> tuple[RealTrial, ...]:
    """All trials in their order."""
    pairs = [(task, setting) for setting in benchmark.settings for task in benchmark.tasks]
    if benchmark.order is Order.TASKS:
        pairs = [(task, setting) for task in benchmark.tasks for setting in benchmark.settings]
    return tuple(
        _trial(benchmark, task, setting, number)
        for task, setting in pairs
        for number in range(benchmark.rollouts)
        if benchmark.tasks[task].settings.get(setting, Variant()) is not None
    )


def select(trials: Sequence[RealTrial], tasks: str = "all", settings: str = "all") -> tuple[RealTrial, ...]:
    """Those of the named tasks and settings, in the order of the plan. Each: `all`, or names separated by commas.

    Raises: ConfigError for a name that is not there, with the nearest, or where nothing is left to play.
    """
    wanted_tasks = _names("--tasks", tasks, [trial.task for trial in trials])
    wanted_settings = _names("--settings", settings, [trial.setting for trial in trials])
    chosen = tuple(trial for trial in trials if trial.task in wanted_tasks and trial.setting in wanted_settings)
    if not chosen:
        raise ConfigError(f"got no trial of {tasks} in {settings}, expected one; the benchmark leaves these out")
    return chosen


def identity(benchmark: Benchmark) -> dict[str, Any]:
    """What run.json says of a benchmark: its name and a digest of what is told the robot, and for how long.

    The texts for the operator may be corrected in the middle of a run.
    """
    told = [[trial.trial.name, trial.instruction, trial.time_limit_s] for trial in plan(benchmark)]
    digest = hashlib.sha256(json.dumps(sorted(told)).encode()).hexdigest()
    return {"real_benchmark": benchmark.name, "trials": digest[:16]}


def _trial(benchmark: Benchmark, name: str, setting: str, number: int) -> RealTrial:
    task = benchmark.tasks[name]
    variant = task.settings.get(setting) or Variant()
    return RealTrial(
        task=name,
        setting=setting,
        number=number,
        instruction=variant.instruction or task.instruction,
        setup=(variant.setup or task.setup, benchmark.settings[setting].change),
        success=variant.success or task.success,
        time_limit_s=task.time_limit_s or benchmark.time_limit_s,
    )


def _names(option: str, text: str, known: Sequence[str]) -> set[str]:
    if text == "all":
        return set(known)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: got '{name}'; {nearest(name, dict.fromkeys(known))}")
    return set(names)

"""A published set and tasks in, its trials out; success rates of its variants in, the published averages out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim_bridges.evaluation.benchmarks import Average
from sim_bridges.evaluation.trials import Trial
from sim_bridges.simpler.protocol import AGGREGATION, CAMERAS, GROUPS, MATCHING, TASKS, TWINS
from sim_bridges.simpler.robots import robot_of
from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class SimplerSet:
    """One of SIMPLER's sets; implements `sim_bridges.evaluation.benchmarks.Benchmark`."""

    name: str

    def trials(self, contract: RobotContract, tasks: str, seed: int, per_variant: int | None) -> tuple[Trial, ...]:
        """Every start of every variant once, or `per_variant` of each. tasks: also names of GROUPS."""
        robot = robot_of(contract)
        known = [name for name, task in TASKS.items() if task.robot is robot and self.name in task.sets]
        if not known:
            others = dict.fromkeys(task.robot.name for task in TASKS.values() if self.name in task.sets)
            raise ConfigError(f"--benchmark {self.name}: got robot {robot.name}, expected {' or '.join(others)}")
        trials: list[Trial] = []
        for name in known if tasks == "all" else _tasks_of(tasks, known):
            for variant in TASKS[name].sets[self.name]:
                count = min(len(variant.starts), per_variant or len(variant.starts))
                trials += [Trial(f"{name}/{self.name}/{variant.name}", seed + number) for number in range(count)]
        return tuple(trials)

    def averages(self, rates: Mapping[str, float]) -> Sequence[Average]:
        """Of each task over its variants, of each group over the variants of its tasks, and over the groups."""
        of_tasks: dict[str, list[float]] = {}
        for address, rate in rates.items():
            of_tasks.setdefault(address.partition("/")[0], []).append(rate)
        averages, of_groups = [], []
        for group, names in GROUPS.items():
            there = [name for name in names if name in of_tasks]
            if len(names) > 1:
                averages += [_average(name, of_tasks[name]) for name in there]
            if there == list(names):
                of_groups.append(_average(group, [rate for name in names for rate in of_tasks[name]]))
        averages += of_groups
        if len(of_groups) > 1:
            averages.append(_average("average", [group.success_rate for group in of_groups]))
        return averages


def _tasks_of(words: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names separated by commas, groups as the tasks that they are the mean of. Raises: ConfigError."""
    tasks: dict[str, None] = {}
    for word in (word.strip() for word in words.split(",")):
        parts = GROUPS.get(word, (word,))
        if not set(parts) <= set(known):
            names = dict.fromkeys([*known, *(group for group, names in GROUPS.items() if set(names) <= set(known))])
            raise ConfigError(f"--tasks: got '{word}'; {nearest(word, names)}")
        tasks |= dict.fromkeys(parts)
    return tuple(tasks)


def _average(name: str, rates: Sequence[float]) -> Average:
    return Average(name, float(np.mean(rates)), len(rates))


VISUAL_MATCHING, VARIANT_AGGREGATION = SimplerSet(MATCHING), SimplerSet(AGGREGATION)
CAMERA_VARIANTS, TWIN_SET = SimplerSet(CAMERAS), SimplerSet(TWINS)

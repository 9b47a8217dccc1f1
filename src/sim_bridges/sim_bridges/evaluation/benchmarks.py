"""A benchmark's name in, its published trials out; success rates of tasks in, its published averages out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sim_bridges.evaluation.trials import Trial
from sim_bridges.registry import find_sim, load
from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Average:
    """A mean of success rates, each of the same weight. of: how many rates it is the mean of."""

    name: str
    success_rate: float
    of: int


class Benchmark(Protocol):
    """A fixed set of trials of a simulator."""

    def trials(self, contract: RobotContract, tasks: str, seed: int, per_variant: int | None) -> tuple[Trial, ...]:
        """All of it, or of the tasks named: `all`, or names separated by commas.

        per_variant: at most so many trials of each variant of a task. seed: of each variant's first trial.
        Raises: ConfigError for a task that the benchmark or the robot does not have, naming the nearest.
        """

    def averages(self, rates: Mapping[str, float]) -> Sequence[Average]:
        """The averages as published. rates: success rate by the trials' task."""


def find_benchmark(sim: str, name: str) -> Benchmark:
    """Raises: ConfigError for a benchmark that the simulator does not have, naming the nearest."""
    known = find_sim(sim).benchmarks
    if name not in known:
        raise ConfigError(f"--benchmark: got '{name}' for simulator '{sim}'; {nearest(name, known)}")
    return load(known[name])

"""A benchmark's name and the command line's counts in, its trials in order out; and what became of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim_bridges.chains import Chain, ChainResult, Step
from sim_bridges.results import EpisodeResult
from vla_policy.errors import ConfigError, nearest

CHAIN = "chain"  # in place of a task's name


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing to play: an episode of a task, or the chain of a seed."""

    task: str
    seed: int

    @property
    def name(self) -> str:
        """Its name in files."""
        return f"{self.task}/{self.seed}"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What became of a trial. episodes: one, or as many as a chain got. steps: of the chain, as `task choice …`."""

    trial: Trial
    episodes: tuple[EpisodeResult, ...]
    steps: tuple[str, ...] = ()

    @classmethod
    def of_chain(cls, trial: Trial, result: ChainResult) -> TrialResult:
        """What became of a chain."""
        return cls(trial, result.episodes, tuple(" ".join((step.task, *step.choice)) for step in result.chain.steps))

    @property
    def chain(self) -> ChainResult:
        """As the chain that it was."""
        steps = (step.split(" ") for step in self.steps)
        return ChainResult(
            Chain(self.trial.seed, None, tuple(Step(task, tuple(rest)) for task, *rest in steps)), self.episodes
        )


def episode_trials(
    known: Sequence[str], tasks: str, episodes: int | None, per_task: int | None, seed: int, extra: Sequence[str] = ()
) -> tuple[Trial, ...]:
    """`episodes` in all, going round the tasks, or `per_task` of each. tasks as in `chosen_tasks`.

    Raises: ConfigError for an unknown task, naming the nearest.
    """
    chosen = chosen_tasks(tasks, known, extra)
    count = per_task * len(chosen) if per_task is not None else episodes
    return tuple(Trial(chosen[i % len(chosen)], seed + i // len(chosen)) for i in range(count))


def chosen_tasks(tasks: str, known: Sequence[str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """All that are known, or those named. tasks: `all`, or names separated by commas; a name may end in `/VARIANT`.

    extra: tasks that are played only where they are named. Raises: ConfigError for an unknown task, naming the nearest.
    The simulator itself knows the variants.
    """
    chosen = tuple(known) if tasks == "all" else tuple(task.strip() for task in tasks.split(","))
    for task in chosen:
        if task.partition("/")[0] not in (*known, *extra):
            raise ConfigError(f"--tasks: got '{task}'; {nearest(task, (*known, *extra))}")
    return chosen


def chain_trials(count: int, seed: int) -> tuple[Trial, ...]:
    """The chains of `count` seeds."""
    return tuple(Trial(CHAIN, seed + i) for i in range(count))

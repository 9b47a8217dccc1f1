"""A symbolic twin of a sim and a seed in, chains of instructions out; how far a policy gets in each, as CALVIN counts.

CALVIN's long-horizon protocol (Mees et al. 2022, https://arxiv.org/abs/2112.03227): five instructions one after the
other without a reset between them; the chain ends at the first that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from sim_bridges.results import EpisodeResult, wilson_interval
from vla_policy.errors import VlaError

LENGTH = 5
ATTEMPTS = 1000  # start states drawn before a twin counts as one that offers no chain

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a chain. choice: what the task leaves open, such as the colours of blocks."""

    task: str
    choice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """Instructions in order. start: the symbolic state they begin in, which only the sim understands.

    seed: of the start scene and of the words.
    """

    seed: int
    start: Any
    steps: tuple[Step, ...]


class Twin(Protocol[State]):
    """What can be done in a world and what comes of it, in symbols: preconditions and effects."""

    def start(self, rng: np.random.Generator) -> State:
        """Draw a state that a chain may begin in."""

    def options(self, state: State, previous: Step | None) -> Sequence[tuple[Step, State]]:
        """Every step that is possible now, with the state after its success, in a fixed order.

        previous: the step before, for twins that want variety.
        """


def draw_chain(twin: Twin[State], seed: int, length: int = LENGTH) -> Chain:
    """The chain of a seed: tasks equally likely among those possible, then the choice within the task.

    Raises: VlaError where the twin never offers `length` steps in a row.
    """
    rng = np.random.default_rng([seed, length])
    for _ in range(ATTEMPTS):
        state = start = twin.start(rng)
        steps: list[Step] = []
        while len(steps) < length:
            options = twin.options(state, steps[-1] if steps else None)
            if not options:
                break
            task = rng.choice(sorted({step.task for step, _ in options}))
            fitting = [option for option in options if option[0].task == task]
            step, state = fitting[rng.integers(len(fitting))]
            steps.append(step)
        else:
            return Chain(seed, start, tuple(steps))
    raise VlaError(f"draw_chain: got no {length} steps in a row from {ATTEMPTS} start states, expected some; "
                   "look at the preconditions of the twin")


@dataclass(frozen=True, slots=True)
class ChainResult:
    """One chain. episodes: as far as it was played; all but the last one succeeded."""

    chain: Chain
    episodes: tuple[EpisodeResult, ...]

    @property
    def solved(self) -> int:
        """How many instructions in a row succeeded."""
        return sum(episode.success for episode in self.episodes)


def summarise_chains(results: Sequence[ChainResult]) -> dict[str, Any]:
    """Success of 1, 2, ... instructions in a row with 95 % intervals, and the average number of them."""
    length = max((len(result.chain.steps) for result in results), default=0)
    in_a_row = []
    for count in range(1, length + 1):
        successes = sum(result.solved >= count for result in results)
        low, high = wilson_interval(successes, len(results))
        in_a_row.append({"instructions": count, "successes": successes, "success_rate": successes / len(results),
                         "interval_95": [low, high]})
    average = float(np.mean([result.solved for result in results])) if results else 0.0
    return {"chains": len(results), "length": length, "average_length": average, "in_a_row": in_a_row,
            "rows": [_row(result) for result in results]}


def _row(result: ChainResult) -> dict[str, Any]:
    return {"seed": result.chain.seed, "solved": result.solved,
            "steps": [" ".join((step.task, *step.choice)) for step in result.chain.steps]}

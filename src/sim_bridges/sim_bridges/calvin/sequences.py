"""Which of CALVIN's 1000 evaluation sequences in, start state and five tasks of each out.

The genuine draw: for start state i, RandomState(i) gives orders of all 34 tasks; the first five count where each
can be done in exactly one way after those before it, and no two are of one kind. RandomState(0) then mixes the
sequences of all start states. The same sequences, in the same order, as CALVIN's `get_sequences`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sim_bridges.calvin.conditions import KINDS, TASKS, State, outcomes, start_states
from vla_policy.errors import ConfigError

SEQUENCES = 1000
LENGTH = 5
DIGEST = "840cb992c69ce9b6"  # of CALVIN's own 1000 sequences, see `digest`
_BATCH = 512  # orders drawn at once
_DEAD = 0  # number of the state in which nothing can be done any more


@dataclass(frozen=True, slots=True)
class TaskSequence:
    """index: place among the 1000. state: what the scene begins with. tasks: five, to be done in order."""

    index: int
    state: State
    tasks: tuple[str, ...]


def sequences(indices: Iterable[int] | None = None) -> list[TaskSequence]:
    """The evaluation sequences of `indices` (None: all 1000), in that order.

    Only the start states that are asked for are drawn, so a few sequences cost little.
    Raises: ConfigError for an index beyond 0 .. 999.
    """
    wanted = range(SEQUENCES) if indices is None else list(indices)
    for index in wanted:
        if not 0 <= index < SEQUENCES:
            raise ConfigError(f"sequence {index}: expected 0 .. {SEQUENCES - 1}; CALVIN evaluates {SEQUENCES}")
    states, places = start_states(), _places()
    return [TaskSequence(index, states[state], _draw(state)[nth])
            for index, (state, nth) in ((index, places[index]) for index in wanted)]


def digest(chosen: Sequence[TaskSequence]) -> str:
    """First 16 hex digits of the sha256 over the sequences as JSON; DIGEST for all 1000."""
    text = json.dumps([[sequence.state, list(sequence.tasks)] for sequence in chosen])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _places() -> tuple[tuple[int, int], ...]:
    """For each evaluation sequence its start state and which draw of that state it is."""
    places = [(state, nth) for state, count in enumerate(_counts()) for nth in range(count)]
    np.random.RandomState(0).shuffle(places)
    return tuple(places)


@cache
def _counts() -> tuple[int, ...]:
    """How many sequences begin with each start state."""
    return tuple(len(part) for part in np.array_split(np.arange(SEQUENCES), len(start_states())))


@cache
def _draw(state: int) -> tuple[tuple[str, ...], ...]:
    """The sequences that begin with start state number `state`, in the order drawn."""
    random = np.random.RandomState(state)
    orders = np.empty((_BATCH, len(TASKS)), np.int64)
    found: list[tuple[str, ...]] = []
    while len(found) < _counts()[state]:
        orders[:] = np.arange(len(TASKS))
        for order in orders:
            random.shuffle(order)
        heads = orders[:, :LENGTH]
        found += [tuple(TASKS[task] for task in head) for head in heads[_possible(state, heads)]]
    return tuple(found[: _counts()[state]])


def _possible(state: int, heads: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows of task numbers (N, 5) can be done from a start state, as (N,)."""
    follow = _transitions()
    kinds = np.sort(_kind_numbers()[heads], axis=1)
    possible = (np.diff(kinds, axis=1) != 0).all(axis=1)
    places = np.full(len(heads), state + 1)
    for column in heads.T:
        places = follow[places, column]
    return possible & (places != _DEAD)


@cache
def _kind_numbers() -> NDArray[np.int64]:
    kinds = sorted(set(KINDS.values()))
    return np.array([kinds.index(KINDS[task]) for task in TASKS])


@cache
def _transitions() -> NDArray[np.int64]:
    """(state number, task number) -> state number, over all states that can be reached; _DEAD: not exactly one way.

    Start state i has the number i + 1.
    """
    states: list[State] = start_states()
    numbers = {tuple(state.values()): number for number, state in enumerate(states, 1)}
    rows = [[_DEAD] * len(TASKS)]
    for state in states:  # grows while it is walked
        row = []
        for task in TASKS:
            ends = outcomes(state, task)
            if len(ends) != 1:
                row.append(_DEAD)
                continue
            key = tuple(ends[0].values())
            if key not in numbers:
                states.append(ends[0])
                numbers[key] = len(states)
            row.append(numbers[key])
        rows.append(row)
    return np.array(rows)

"""The tabletop's tasks in, every sentence it can be told and the place each sentence is about out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_bridges.tabletop.scene import BLOCK_HALF_M, BLOCKS
from sim_bridges.tabletop.tasks import TASKS, Family, Goal, make_goal

PUSH_SIDE_M = 0.05  # a push is about the side of the block that the hand must touch: this teaches left and right


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the goal it means; where it sends the hand."""

    goal: Goal

    @property
    def text(self) -> str:
        """What is said."""
        return self.goal.instruction

    def place(self, positions: dict[str, NDArray[np.float64]], held: str | None) -> NDArray[np.float64]:
        """(3,) m in base_link, given where everything is and the colour of the block in the hand: the thing that the
        hand must go to, or, with that thing in the hand, where it is to go.
        """
        goal = self.goal
        if goal.destination and held == goal.colour:
            above_m = 2 * BLOCK_HALF_M if goal.other else 0.0
            return positions[goal.destination] + [0.0, 0.0, above_m]
        aside_m = -goal.direction * PUSH_SIDE_M if goal.family is Family.PUSH else 0.0
        return positions[goal.target] + [0.0, aside_m, 0.0]


def all_sentences() -> tuple[Sentence, ...]:
    """Every phrasing of every task in every colour it can be drawn with."""
    found = []
    for name, task in TASKS.items():
        for phrase in task.phrases:
            for colours in itertools.permutations(BLOCKS, len(task.named)):
                words = dict(zip(task.named, colours, strict=True))
                words |= {"colour": task.colour} if task.colour else {}
                found.append(Sentence(make_goal(name, phrase, words)))
    return tuple(found)

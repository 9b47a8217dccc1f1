"""The tabletop's tasks in, every sentence it can be told and the place each sentence is about out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_bridges.tabletop.scene import BLOCKS
from sim_bridges.tabletop.tasks import TASKS, Family

PUSH_SIDE_M = (
    0.05  # a push is about the side of the block that the hand must touch: this teaches left and right
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """text; what it names (`target`, a key of TabletopSim.positions); where beside that it acts (`offset`,
    m).
    """

    text: str
    target: str
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def place(self, positions: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """(3,) m in base_link, given where everything is."""
        return positions[self.target] + np.array(self.offset)


def act_offset(family: Family, direction: int) -> tuple[float, float, float]:
    """Where beside the named thing the hand goes [m]: the far side of the way it is pushed, or nowhere."""
    return (0.0, -direction * PUSH_SIDE_M, 0.0) if family is Family.PUSH else (0.0, 0.0, 0.0)


def all_sentences() -> tuple[Sentence, ...]:
    """Every phrasing of every task in every colour it can be drawn with."""
    found = []
    for task in TASKS.values():
        offset = act_offset(task.family, task.direction)
        fixed = {Family.DRAWER: "drawer", Family.PRESS: "button"}.get(task.family)
        colours = [task.colour] if task.colour else list(BLOCKS)
        for phrase in task.phrases:
            if fixed:
                found.append(Sentence(phrase, fixed, offset))
            else:
                found += [
                    Sentence(phrase.format(colour=colour), f"{colour}_block", offset) for colour in colours
                ]
    return tuple(found)

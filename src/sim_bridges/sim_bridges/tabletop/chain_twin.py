"""The tabletop in symbols: what can be asked for next, and what the table is like when it is done.

The rules keep to what the hand can reach without knocking something over: nothing is taken out of the drawer, which
holds one block at most; a block that was pushed, to the left edge or under the drawer's handle, stays there; beside a
stack only its top is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sim_bridges.chains import Chain, Step
from sim_bridges.tabletop.oracles import DRAWER_OPEN_M
from sim_bridges.tabletop.scene import BLOCKS, DRAWER_TRAVEL_M, Layout
from sim_bridges.tabletop.tasks import TASKS, Family, Task

OPEN_DRAWER_M = (DRAWER_OPEN_M + 0.002, DRAWER_TRAVEL_M)
TABLE, PUSHED, DRAWER, STACKED = "table", "pushed", "drawer", "stacked"  # a pad's name is a place too


@dataclass(frozen=True, slots=True)
class TabletopState:
    """drawer_open, light_on. places: where each block of BLOCKS is, in their order.

    held: colour of the block in the hand, `places` says where it came from. base: colour of the block under another.
    """

    drawer_open: bool
    light_on: bool
    places: tuple[str, ...] = (TABLE,) * len(BLOCKS)
    held: str | None = None
    base: str | None = None

    def place(self, colour: str) -> str:
        """Where a block is."""
        return self.places[list(BLOCKS).index(colour)]

    def moved(self, colour: str, place: str) -> TabletopState:
        """The state after a block was brought to a place and let go."""
        places = tuple(place if name == colour else old for name, old in zip(BLOCKS, self.places, strict=True))
        base = None if self.place(colour) == STACKED else self.base
        return replace(self, places=places, held=None, base=base)


class TabletopTwin:
    """The rules. No two steps in a row are of one family."""

    def start(self, rng: np.random.Generator) -> TabletopState:
        """All blocks on the table; drawer and light by chance."""
        return TabletopState(*(bool(value) for value in rng.integers(0, 2, 2)))

    def options(self, state: TabletopState, previous: Step | None) -> list[tuple[Step, TabletopState]]:
        """Every possible step with the state after it, in the order of TASKS."""
        found = []
        for name, task in TASKS.items():
            if previous is not None and _kind(task) == _kind(TASKS[previous.task]):
                continue
            found += [(Step(name, choice), after) for choice, after in _outcomes(state, task)]
        return found


def start_layout(chain: Chain) -> Layout:
    """The layout that a chain begins with: drawer and light as its state says, room for the pushes."""
    state: TabletopState = chain.start
    pushed = dict.fromkeys(step.choice[0] for step in chain.steps if TASKS[step.task].family is Family.PUSH)
    drawer_m = OPEN_DRAWER_M if state.drawer_open else Layout().drawer_m
    return Layout(drawer_m, tuple(pushed), state.light_on)


def _kind(task: Task) -> Family:
    """Pressing is pressing, whatever for."""
    return Family.PRESS if task.family is Family.LIGHT else task.family


def _outcomes(state: TabletopState, task: Task) -> Iterator[tuple[tuple[str, ...], TabletopState]]:
    """What the task can be about now, with the state after it."""
    freed = replace(state, held=None)
    if task.family in (Family.PRESS, Family.LIGHT, Family.DRAWER):
        now = {Family.DRAWER: state.drawer_open, Family.LIGHT: state.light_on}.get(task.family)
        if _can_let_go(state) and (now is None or now is (task.direction < 0)):
            change = {"drawer_open": not now} if task.family is Family.DRAWER else {"light_on": not state.light_on}
            yield (), replace(freed, **change)
        return
    for colour in [task.colour] if task.colour else BLOCKS:
        if not _within_reach(state, colour):
            continue
        if task.family is Family.LIFT and state.held is None:
            yield (), replace(state, held=colour)
        elif task.family is Family.STACK:
            for other in BLOCKS:
                if other != colour and state.base is None and _within_reach(freed, other):
                    yield (colour, other), replace(state.moved(colour, STACKED), base=other)
        elif task.family is Family.STORE and state.drawer_open and DRAWER not in state.places:
            yield (colour,), state.moved(colour, DRAWER)
        elif task.family is Family.SLIDE and task.destination not in state.places:
            yield (colour,), state.moved(colour, task.destination)
        elif task.family is Family.PUSH and _can_be_pushed(state, colour, task.direction):
            yield (colour,), state.moved(colour, PUSHED)


def _within_reach(state: TabletopState, colour: str) -> bool:
    """Whether the hand can take the block and do something new with it."""
    place = state.place(colour)
    if state.held is not None and state.held != colour and not _can_let_go(state):
        return False
    if place in (DRAWER, PUSHED):
        return False
    return state.base is None or place == STACKED


def _can_be_pushed(state: TabletopState, colour: str, direction: int) -> bool:
    """Whether there is room; on the right the handle of an open drawer is in the way."""
    free = direction < 0 or not state.drawer_open
    return free and state.held is None and state.place(colour) == TABLE


def _can_let_go(state: TabletopState) -> bool:
    """Whether a held block can go back where it came from; the top of a stack cannot without the stack's standing."""
    return state.held is None or state.place(state.held) != STACKED

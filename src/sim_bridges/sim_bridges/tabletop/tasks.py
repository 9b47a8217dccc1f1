"""A task name and a random generator in, a Goal out: what is asked, in which words, and when it is done.

Left and right are those of the static camera's image, which faces the robot: left is -y in base_link,
right is +y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sim_bridges.tabletop.scene import BLOCK_HALF_M, BLOCKS, Scene
from vla_policy.errors import VlaError, nearest

LIFT_HEIGHT_M = 0.06  # of the block's underside above the table
PUSH_DISTANCE_M = 0.08
PUSH_MAX_DRIFT_M = 0.08  # along x, either way
DRAWER_OPEN_M = 0.08
DRAWER_SHUT_M = 0.015
BUTTON_PRESSED_M = 0.010
TABLE_X_M = (0.15, 0.84)
TABLE_Y_M = (-0.56, 0.56)


class Family(StrEnum):
    """Kinds of task; one scripted expert each."""

    LIFT = "lift"
    PUSH = "push"
    DRAWER = "drawer"
    PRESS = "press"


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the table.

    phrases: may hold a `{colour}`. colour: None where the seed draws it.
    direction: of a push -1 left, +1 right; of a drawer +1 open, -1 close.
    """

    family: Family
    phrases: tuple[str, str, str]
    colour: str | None = None
    direction: int = 0


@dataclass(frozen=True, slots=True)
class Goal:
    """A task with everything drawn. `target`: the thing the instruction names, a key of `Scene.positions`."""

    task: str
    family: Family
    target: str
    direction: int
    instruction: str


def _lift(colour: str) -> Task:
    phrases = ("lift the {colour} block", "pick up the {colour} block", "grab the {colour} block")
    return Task(Family.LIFT, phrases, colour)


def _push(side: str, direction: int) -> Task:
    phrases = (f"push the {{colour}} block {side}", f"push the {{colour}} block to the {side}",
               f"slide the {{colour}} block to the {side}")
    return Task(Family.PUSH, phrases, direction=direction)


TASKS: dict[str, Task] = {
    **{f"lift_{colour}_block": _lift(colour) for colour in BLOCKS},
    "push_left": _push("left", -1),
    "push_right": _push("right", +1),
    "open_drawer": Task(
        Family.DRAWER, ("open the drawer", "pull the drawer open", "pull out the drawer"), direction=+1),
    "close_drawer": Task(
        Family.DRAWER, ("close the drawer", "push the drawer shut", "shut the drawer"), direction=-1),
    "press_button": Task(Family.PRESS, ("press the button", "push the button", "push down the button")),
}


def find_task(name: str) -> Task:
    """Look a task up. Raises: VlaError naming the nearest."""
    if name not in TASKS:
        raise VlaError(f"task: got '{name}', expected one of the tabletop's tasks; {nearest(name, TASKS)}")
    return TASKS[name]


def draw_goal(name: str, rng: np.random.Generator) -> Goal:
    """Draw the words, and the colour where the task leaves it open. Raises: VlaError for an unknown task."""
    task = find_task(name)
    phrase = task.phrases[rng.integers(len(task.phrases))]
    drawn = str(rng.choice(list(BLOCKS)))
    colour = task.colour or drawn
    target = {Family.DRAWER: "drawer", Family.PRESS: "button"}.get(task.family, f"{colour}_block")
    return Goal(name, task.family, target, task.direction, phrase.format(colour=colour))


def reached(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    """Whether the goal's condition holds. start: (3,) m, base_link, where the named thing was at reset."""
    return _ORACLES[goal.family](goal, scene, start)


def _lifted(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    return bool(scene.positions()[goal.target][2] > BLOCK_HALF_M + LIFT_HEIGHT_M)


def _pushed(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    now = scene.positions()[goal.target]
    moved = now - start
    on_table = TABLE_X_M[0] < now[0] < TABLE_X_M[1] and TABLE_Y_M[0] < now[1] < TABLE_Y_M[1]
    flat = abs(now[2] - BLOCK_HALF_M) < 0.01
    straight = abs(moved[0]) < PUSH_MAX_DRIFT_M
    return bool(goal.direction * moved[1] > PUSH_DISTANCE_M and straight and on_table and flat)


def _drawer_moved(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    opening_m = scene.drawer_opening_m
    return opening_m > DRAWER_OPEN_M if goal.direction > 0 else opening_m < DRAWER_SHUT_M


def _pressed(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    return scene.button_depth_m > BUTTON_PRESSED_M


_ORACLES: dict[Family, Callable[[Goal, Scene, NDArray[np.float64]], bool]] = {
    Family.LIFT: _lifted,
    Family.PUSH: _pushed,
    Family.DRAWER: _drawer_moved,
    Family.PRESS: _pressed,
}

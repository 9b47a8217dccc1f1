"""A task name and a random generator in, a Goal out: what is asked, in which words, of which things.

Left and right are those of the static camera's image, which faces the robot: left is -y in base_link,
right is +y. `oracles` tells when a goal is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sim_bridges.tabletop.scene import BLOCKS, PADS
from vla_policy.errors import VlaError, nearest


class Family(StrEnum):
    """Kinds of task; one scripted expert each."""

    LIFT = "lift"
    PUSH = "push"
    SLIDE = "slide"
    STACK = "stack"
    STORE = "store"
    DRAWER = "drawer"
    PRESS = "press"
    LIGHT = "light"
    BRING = "bring"


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the table.

    phrases: may hold a `{colour}` and an `{other}`. colour: None where the seed draws it.
    direction: of a push -1 left, +1 right; of a drawer +1 open, -1 close; of the light +1 on, -1 off.
    destination: where the block goes, a key of `Scene.positions`; of a stack it is drawn.
    """

    family: Family
    phrases: tuple[str, str, str]
    colour: str | None = None
    direction: int = 0
    destination: str = ""

    @property
    def named(self) -> tuple[str, ...]:
        """The colours that its phrases leave open: none, ("colour",) or ("colour", "other")."""
        return tuple(name for name in ("colour", "other") if f"{{{name}}}" in self.phrases[0] and not self.colour)


@dataclass(frozen=True, slots=True)
class Goal:
    """A task with everything drawn.

    target: the thing that the hand first goes to. destination: where that thing goes then, or "". Both are keys of
    `Scene.positions`.
    """

    task: str
    family: Family
    target: str
    direction: int
    instruction: str
    destination: str = ""

    @property
    def colour(self) -> str:
        """Of the block that it is about; an empty text where it is about none."""
        return self.target.removesuffix("_block") if self.target.endswith("_block") else ""

    @property
    def other(self) -> str:
        """Colour of the block that another one goes on; an empty text where there is none."""
        return self.destination.removesuffix("_block") if self.destination.endswith("_block") else ""


def _lift(colour: str) -> Task:
    phrases = ("lift the {colour} block", "pick up the {colour} block", "grab the {colour} block")
    return Task(Family.LIFT, phrases, colour)


def _push(side: str, direction: int) -> Task:
    phrases = (f"push the {{colour}} block {side}", f"push the {{colour}} block to the {side}",
               f"slide the {{colour}} block to the {side}")
    return Task(Family.PUSH, phrases, direction=direction)


def _slide(pad: str) -> Task:
    phrases = (f"slide the {{colour}} block to the {pad} pad", f"move the {{colour}} block to the {pad} pad",
               f"drag the {{colour}} block to the {pad} pad")
    return Task(Family.SLIDE, phrases, destination=f"{pad}_pad")


def _light(state: str, direction: int) -> Task:
    phrases = (f"turn {state} the light", f"switch {state} the lamp", f"turn the lamp {state}")
    return Task(Family.LIGHT, phrases, direction=direction)


TASKS: dict[str, Task] = {
    **{f"lift_{colour}_block": _lift(colour) for colour in BLOCKS},
    "push_left": _push("left", -1),
    "push_right": _push("right", +1),
    **{f"slide_to_{pad}_pad": _slide(pad) for pad in PADS},
    "stack_blocks": Task(Family.STACK, (
        "stack the {colour} block on the {other} block", "put the {colour} block on the {other} block",
        "place the {colour} block on the {other} block")),
    "put_in_drawer": Task(Family.STORE, (
        "put the {colour} block into the drawer", "place the {colour} block in the drawer",
        "drop the {colour} block into the drawer"), destination="drawer_inside"),
    "open_drawer": Task(
        Family.DRAWER, ("open the drawer", "pull the drawer open", "pull out the drawer"), direction=+1),
    "close_drawer": Task(
        Family.DRAWER, ("close the drawer", "push the drawer shut", "shut the drawer"), direction=-1),
    "press_button": Task(Family.PRESS, ("press the button", "push the button", "push down the button")),
    "turn_on_light": _light("on", +1),
    "turn_off_light": _light("off", -1),
}

# Tasks that the shipped policy has never seen, to be taught to it (docs/data-loop.md). They are played where they are
# named, and are in no chain.
EXTRA_TASKS: dict[str, Task] = {
    "bring_to_lamp": Task(Family.BRING, (
        "move the {colour} block to the lamp", "bring the {colour} block to the light",
        "put the {colour} block by the lamp"), destination="lamp_front"),
}


def find_task(name: str) -> Task:
    """Look a task up. Raises: VlaError naming the nearest."""
    known = TASKS | EXTRA_TASKS
    if name not in known:
        raise VlaError(f"task: got '{name}', expected one of the tabletop's tasks; {nearest(name, known)}")
    return known[name]


def draw_goal(name: str, rng: np.random.Generator, colours: Sequence[str] | None = None) -> Goal:
    """Draw the words, and the colours that the task leaves open unless `colours` gives them.

    Raises: VlaError for an unknown task, or colours that are not as many different blocks as the task leaves open.
    """
    task = find_task(name)
    phrase = task.phrases[rng.integers(len(task.phrases))]
    drawn = [str(colour) for colour in rng.permutation(list(BLOCKS))[:len(task.named)]]
    chosen = drawn if colours is None else list(colours)
    if len(chosen) != len(task.named) or len(set(chosen)) != len(chosen) or not set(chosen) <= set(BLOCKS):
        raise VlaError(f"{name}: got the colours {chosen}, expected {len(task.named)} different ones of "
                       f"{', '.join(BLOCKS)}; see the task's phrases")
    words = dict(zip(task.named, chosen, strict=True)) | ({"colour": task.colour} if task.colour else {})
    return make_goal(name, phrase, words)


def make_goal(name: str, phrase: str, words: dict[str, str]) -> Goal:
    """The goal of a task said with one of its phrases. words: values of its `{colour}` and `{other}`."""
    task = find_task(name)
    fixture = {Family.DRAWER: "drawer", Family.PRESS: "button", Family.LIGHT: "button"}.get(task.family)
    destination = f"{words['other']}_block" if task.family is Family.STACK else task.destination
    return Goal(name, task.family, fixture or f"{words['colour']}_block", task.direction, phrase.format(**words),
                destination)

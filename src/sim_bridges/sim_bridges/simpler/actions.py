"""Commands of a contract in, SIMPLER's actions out: a step of the tool in metres and axis times angle, and a gripper.

SIMPLER's action is seven numbers: by how much the tool moves along the base's axes [m], a rotation vector about them
[rad], and the gripper. WidowX takes an absolute position, 1 open or -1 closed; Google's robot a change, 1 closing and
-1 opening, which is sticky (`StickyGripper`). Source: policies/octo/octo_model.py of simpler-env/SimplerEnv (4ab7178).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim_bridges.simpler.robots import Robot

Vector = NDArray[np.float64]

OPEN_ABOVE = 0.5  # WidowX: an opening above this is open
CHANGE_ABOVE = 0.5  # Google: a change of opening above this between two steps begins a sticky motion


class Gripper(Protocol):
    """Openings 0 .. 1 in, the number that the environment takes out; may depend on the steps before."""

    def begin(self) -> None:
        """An instruction begins: forget what was."""

    def action(self, opening: float | None) -> float:
        """What the environment gets for this step. None: nothing new is asked for."""


class BinaryGripper:
    """WidowX: -1 closed or 1 open."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Open until told otherwise."""
        self._action = 1.0

    def action(self, opening: float | None) -> float:
        """-1.0 or 1.0; None keeps what it is."""
        if opening is not None:
            self._action = 1.0 if opening > OPEN_ABOVE else -1.0
        return self._action


class StickyGripper:
    """Google's robot: how much more closed than a step before, from -1 to 1; a large change is repeated.

    A change above CHANGE_ABOVE goes on for `steps` steps whatever is asked for meanwhile, because one step does not
    close the gripper. The first step of an instruction changes nothing.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.begin()

    def begin(self) -> None:
        """Forget the last opening and end a motion."""
        self._opening: float | None = None
        self._sticky = 0.0
        self._repeats = 0

    def action(self, opening: float | None) -> float:
        """Closing as a number above 0, opening below; None is the opening of the step before."""
        last = self._opening
        self._opening = last if opening is None else opening
        change = 0.0 if last is None or self._opening is None else last - self._opening
        if not self._repeats:
            if abs(change) <= CHANGE_ABOVE:
                return change
            self._sticky = change
        self._repeats = (self._repeats + 1) % self._steps
        return self._sticky


def gripper_of(robot: Robot) -> Gripper:
    """The gripper of a robot."""
    return StickyGripper(robot.sticky_steps) if robot.sticky_steps else BinaryGripper()


def arm_action(twist: Vector, period_s: float) -> Vector:
    """Twist (6,) in m/s and rad/s in the base frame, held for `period_s` -> the step (6,) in m and rad."""
    return twist * period_s

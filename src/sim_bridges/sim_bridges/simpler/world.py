"""A robot and a set in, the simulator that plays it out: what the bridge needs of one, and which is opened when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim_bridges.simpler.addresses import Scene
from sim_bridges.simpler.protocol import TWINS
from sim_bridges.simpler.robots import Robot
from vla_policy.types import Pose

Vector = NDArray[np.float64]


class World(Protocol):
    """A robot, a scene, a judge. Actions are SIMPLER's seven numbers, see `sim_bridges.simpler.actions`."""

    def begin(self, scene: Scene) -> None:
        """Make a start scene that depends on nothing before. Raises: ConfigError naming what is missing."""

    def step(self, action: Vector) -> None:
        """One control period with an action (7,)."""

    def image(self) -> NDArray[np.uint8]:
        """What the camera sees, (H, W, 3) RGB. Costly: only this renders."""

    @property
    def joints(self) -> Vector:
        """Joint positions in the robot's order [rad or m]."""

    @property
    def tool(self) -> Pose:
        """Pose of the tool in the frame of the robot's base."""

    def places_m(self) -> tuple[Vector, Vector]:
        """Where the object to move and the one to move it to are, (3,) each, in the base's frame: for scripts."""

    @property
    def instruction(self) -> str:
        """What is to be done now, in words."""

    def next_instruction(self) -> None:
        """Go on to the last instruction if it is not the present one."""

    def solved(self) -> bool:
        """Whether the environment says success now."""

    def close(self) -> None:
        """Free the renderer."""


Opener = Callable[[Robot, str], World]


def open_world(robot: Robot, set_name: str) -> World:
    """The simulator that plays a set. Raises: ConfigError naming what is missing on this machine."""
    if set_name == TWINS:
        from sim_bridges.simpler.twins import open_twins

        return open_twins(robot)
    from sim_bridges.simpler.genuine import open_genuine

    return open_genuine(robot)

"""A SimplerSim in, steps of the tool out: a scripted expert that sees the true state, for WidowX's tasks on the table.

It acts through the contract like any policy, and SIMPLER's own environment judges it: grasp from above, carry, let go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_bridges.simpler.sim import SimplerSim
from vla_policy.action.rotation import rotvec_from_quaternion
from vla_policy.errors import InstructionError, nearest
from vla_policy.types import ActionChunk, Observation

Vector = NDArray[np.float64]

OPEN, CLOSED = 1.0, 0.0
STEP_M, STEP_RAD = 0.025, 0.15  # the most that is asked for in one step
NEAR_M = 0.004
HOVER_M, CARRY_M = 0.08, 0.10
GRASP_STEPS, SETTLE_STEPS = 4, 2


@dataclass(frozen=True, slots=True)
class Script:
    """grasp_m: from the object's middle to where the fingers close, in the base's frame. drop_m: height of letting go.

    turn_rad: of the hand about the vertical, for what lies across the fingers, by the layout's two ways to lie.
    """

    grasp_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    drop_m: float = 0.035
    turn_rad: tuple[float, float] = (0.0, 0.0)


SCRIPTS: Mapping[str, Script] = {
    "widowx_stack_cube": Script(),
    "widowx_spoon_on_towel": Script(drop_m=0.03, turn_rad=(0.0, np.pi / 2)),
    "widowx_carrot_on_plate": Script(drop_m=0.04, turn_rad=(0.0, np.pi / 2)),
}


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Go to a place (3,) [m] in the base's frame until near it or for `most` steps, then stay for `steps`."""

    place_m: Vector
    gripper: float
    steps: int = 0
    most: int = 14


class Expert:
    """A policy (`vla_policy.run.SteppedPolicy`) that follows the waypoints of the sim's present task."""

    def __init__(self, sim: SimplerSim) -> None:
        self._sim = sim
        self.period_ns = sim.period_ns
        self.timings: dict[str, float] = {}

    def reset(self, instruction: str) -> None:
        """Plan for the sim's present scene. Raises: InstructionError where no script does it."""
        scene = self._sim.scene
        task = "" if scene is None else scene.task.name
        if task not in SCRIPTS:
            raise InstructionError(f"expert: got task '{task}' ({instruction}); {nearest(task, SCRIPTS)}")
        script = SCRIPTS[task]
        source, target = self._sim.world.places_m()
        self._steps = self._follow(_plan(script, source, target))

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """The next step as a chunk of one row."""
        self._seen = observation
        return ActionChunk(observation.stamp_ns, self.period_ns, next(self._steps)[None], 1, run_id)

    def _follow(self, waypoints: list[Waypoint]) -> Iterator[Vector]:
        """Rows (7,): steps of position [m] and rotation vector [rad], gripper; at the end it stays where it is."""
        gripper = OPEN
        for waypoint in waypoints:
            gripper = waypoint.gripper
            for _ in range(waypoint.most):
                way = waypoint.place_m - self._seen.pose.position
                if np.linalg.norm(way) < NEAR_M:
                    break
                yield self._row(way, gripper)
            for _ in range(waypoint.steps):
                yield self._row(waypoint.place_m - self._seen.pose.position, gripper)
        while True:
            yield self._row(np.zeros(3), gripper)

    def _row(self, way: Vector, gripper: float) -> Vector:
        length = float(np.linalg.norm(way))
        return np.concatenate([way if length <= STEP_M else way * STEP_M / length, np.zeros(3), [gripper]])


def _plan(script: Script, source: Vector, target: Vector) -> list[Waypoint]:
    grasp = source + script.grasp_m
    above = target * [1, 1, 0] + [0, 0, grasp[2] + CARRY_M]
    drop = target * [1, 1, 0] + [0, 0, grasp[2] + script.drop_m]
    up = np.array([0.0, 0.0, HOVER_M])
    return [Waypoint(grasp + up, OPEN), Waypoint(grasp, OPEN, SETTLE_STEPS), Waypoint(grasp, CLOSED, GRASP_STEPS, 0),
            Waypoint(grasp + [0, 0, CARRY_M], CLOSED), Waypoint(above, CLOSED), Waypoint(drop, CLOSED, SETTLE_STEPS),
            Waypoint(drop, OPEN, SETTLE_STEPS, 0), Waypoint(above, OPEN)]

"""A SimplerSim in, steps of the tool out: a scripted expert that sees the true state, for WidowX's tasks on the table.

It acts through the contract like any policy, and SIMPLER's own environment judges it: grasp from above, carry, let go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_bridges.simpler.sim import SimplerSim
from vla_policy.errors import InstructionError, nearest
from vla_policy.types import ActionChunk, Observation

Vector = NDArray[np.float64]

OPEN, CLOSED = 1.0, 0.0
STEP_M = 0.025  # the most that is asked for in one step
NEAR_M = 0.004
HOVER_M, CARRY_M = 0.08, 0.10
GRASP_STEPS, SETTLE_STEPS = 4, 2


# How far above the height of the grasp the fingers open [m].
DROPS_M: Mapping[str, float] = {
    "widowx_stack_cube": 0.035, "widowx_spoon_on_towel": 0.03, "widowx_carrot_on_plate": 0.04}


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
        self._rows: Iterator[Vector] = iter(())

    def reset(self, instruction: str) -> None:
        """Plan for the sim's present scene. Raises: InstructionError where no script does it."""
        scene = self._sim.scene
        task = "" if scene is None else scene.task.name
        if task not in DROPS_M:
            raise InstructionError(f"expert: got task '{task}' ({instruction}); {nearest(task, DROPS_M)}")
        self._rows = self._follow(_plan(*self._sim.world.places_m(), DROPS_M[task]))

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """The next step as a chunk of one row."""
        self._seen = observation
        return ActionChunk(observation.stamp_ns, self.period_ns, next(self._rows)[None], 1, run_id)

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


def _plan(source: Vector, target: Vector, drop_m: float) -> list[Waypoint]:
    """source, target: places (3,) of the objects [m]. Over the one, down, close, over the other, down, open, up."""
    above, drop = (np.append(target[:2], source[2] + height_m) for height_m in (CARRY_M, drop_m))
    return [Waypoint(source + [0, 0, HOVER_M], OPEN), Waypoint(source, OPEN, SETTLE_STEPS),
            Waypoint(source, CLOSED, GRASP_STEPS, 0), Waypoint(source + [0, 0, CARRY_M], CLOSED),
            Waypoint(above, CLOSED), Waypoint(drop, CLOSED, SETTLE_STEPS), Waypoint(drop, OPEN, SETTLE_STEPS, 0),
            Waypoint(above, OPEN)]

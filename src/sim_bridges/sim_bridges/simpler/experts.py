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
STEP_M, STEP_RAD = 0.025, 0.2  # the most that is asked for in one step
NEAR_M = 0.004
HOVER_M, CARRY_M = 0.08, 0.10
GRASP_STEPS, SETTLE_STEPS = 4, 2


@dataclass(frozen=True, slots=True)
class Script:
    """drop_m: how far above the height of the grasp the fingers open. lift_m: of the grasp above the object's middle.

    turns_rad: of the hand before the grasp, about the vertical, by how the object lies: layouts take turns in it.
    """

    drop_m: float
    turns_rad: tuple[float, ...] = (0.0,)
    lift_m: float = 0.0


SCRIPTS: Mapping[str, Script] = {
    "widowx_stack_cube": Script(0.035),
    "widowx_spoon_on_towel": Script(0.03, (0.0, np.pi / 2), lift_m=0.01),  # lower, the fingers meet the table
    "widowx_carrot_on_plate": Script(0.04, (0.0, np.pi / 2))}


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Go to a place (3,) [m] in the base's frame until near it or for `most` steps, then stay for `steps`.

    turn_rad: of the hand about the vertical, against how it began.
    """

    place_m: Vector
    turn_rad: float
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
        if task not in SCRIPTS:
            raise InstructionError(f"expert: got task '{task}' ({instruction}); {nearest(task, SCRIPTS)}")
        script = SCRIPTS[task]
        turn_rad = script.turns_rad[scene.start.layout % len(script.turns_rad)]
        source, target = self._sim.world.places_m()
        self._rows = self._follow(_plan(source + [0, 0, script.lift_m], target, turn_rad, script.drop_m))

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """The next step as a chunk of one row."""
        self._seen = observation
        return ActionChunk(observation.stamp_ns, self.period_ns, next(self._rows)[None], 1, run_id)

    def _follow(self, waypoints: list[Waypoint]) -> Iterator[Vector]:
        """Rows (7,): steps of position [m] and rotation vector [rad], gripper; at the end it stays where it is."""
        turned_rad = 0.0
        for waypoint in waypoints:
            for number in range(waypoint.most + waypoint.steps):
                way, turn_rad = waypoint.place_m - self._seen.pose.position, waypoint.turn_rad - turned_rad
                if number < waypoint.most and np.linalg.norm(way) < NEAR_M and not turn_rad:
                    continue
                turn_rad = float(np.clip(turn_rad, -STEP_RAD, STEP_RAD))
                turned_rad += turn_rad
                yield _row(way, turn_rad, waypoint.gripper)
        while True:
            yield _row(np.zeros(3), 0.0, waypoints[-1].gripper)


def _row(way: Vector, turn_rad: float, gripper: float) -> Vector:
    length = float(np.linalg.norm(way))
    step = way if length <= STEP_M else way * STEP_M / length
    return np.concatenate([step, [0.0, 0.0, turn_rad, gripper]])


def _plan(source: Vector, target: Vector, turn_rad: float, drop_m: float) -> list[Waypoint]:
    """Over the one object, down, close, over the other, down, open, up.

    source: where to grasp, (3,) [m]. target: place of the other object. drop_m: height of letting go above the grasp.
    """
    above, drop = (np.append(target[:2], source[2] + height_m) for height_m in (CARRY_M, drop_m))
    ways = ((source + [0, 0, HOVER_M], OPEN), (source, OPEN, SETTLE_STEPS), (source, CLOSED, GRASP_STEPS, 0),
            (source + [0, 0, CARRY_M], CLOSED), (above, CLOSED), (drop, CLOSED, SETTLE_STEPS),
            (drop, OPEN, SETTLE_STEPS, 0), (above, OPEN))
    return [Waypoint(place_m, turn_rad, *more) for place_m, *more in ways]

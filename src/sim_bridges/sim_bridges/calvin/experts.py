"""A CalvinSim in, absolute poses out: scripted experts that see the true state, for three of CALVIN's tasks.

They act through the contract `calvin_absolute` like any policy, and CALVIN's own oracle judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_bridges.calvin.actions import quaternion_from_euler
from sim_bridges.calvin.sim import PERIOD_NS, CalvinSim
from sim_bridges.calvin.states import BLOCK_AT
from vla_policy.action.rotation import rotvec_from_quaternion
from vla_policy.errors import InstructionError, nearest
from vla_policy.types import ActionChunk, Observation

Vector = NDArray[np.float64]

OPEN, CLOSED = 1.0, 0.0
STEP_M, STEP_RAD = 0.012, 0.04  # the most that a target moves in one period
SETTLE_STEPS = 8  # the arm trails its target by so much
GRASP_STEPS = 15
HOVER_M = 0.10
BUTTON_M = np.array([-0.12, -0.12, 0.46])
DRAWER_HANDLE_M = np.array([0.18, -0.245, 0.355])  # of the closed drawer
PULL_M = 0.20
ACROSS_RAD, ALONG_RAD = np.pi / 2, 0.0  # tool yaw: fingers beside each other along x, along y


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Go to position (3,) [m] in the world frame, tool down at `yaw_rad`, then stay for `steps` periods."""

    position: Vector
    yaw_rad: float
    gripper: float
    steps: int = SETTLE_STEPS


class Expert:
    """A policy (`vla_policy.run.SteppedPolicy`) that follows the waypoints of the sim's present task."""

    period_ns = PERIOD_NS

    def __init__(self, sim: CalvinSim) -> None:
        self._sim = sim
        self.timings: dict[str, float] = {}
        self._rows: Iterator[Vector] = iter(())
        self._last = np.zeros(7)

    def reset(self, instruction: str) -> None:
        """Plan for the sim's present task. Raises: InstructionError where no script does it."""
        task = self._sim.task
        if task not in SCRIPTS:
            raise InstructionError(f"expert: got task '{task}' ({instruction}); {nearest(str(task), SCRIPTS)}")
        self._rows = self._follow(SCRIPTS[task](self._sim))

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """The next pose as a chunk of one row; at the end of the script the last one again."""
        self._last = next(self._rows, self._last)
        return ActionChunk(observation.stamp_ns, PERIOD_NS, self._last[np.newaxis], 1, run_id)

    def _follow(self, waypoints: list[Waypoint]) -> Iterator[Vector]:
        """Rows (7,): position [m], rotation vector [rad], gripper; straight lines at a bounded speed."""
        position, yaw = self._sim.robot_obs[:3].copy(), float(self._sim.robot_obs[5])
        for waypoint in waypoints:
            way, turn = waypoint.position - position, waypoint.yaw_rad - yaw
            count = int(np.ceil(max(float(np.linalg.norm(way)) / STEP_M, abs(turn) / STEP_RAD, 1.0)))
            for share in [*(np.arange(1, count + 1) / count), *([1.0] * waypoint.steps)]:
                rotation = rotvec_from_quaternion(quaternion_from_euler(np.array([np.pi, 0.0, yaw + share * turn])))
                yield np.concatenate([position + share * way, rotation, [waypoint.gripper]])
            position, yaw = waypoint.position, waypoint.yaw_rad


def _lift_red_block(sim: CalvinSim) -> list[Waypoint]:
    begin = BLOCK_AT["red_block"]
    block, yaw = sim.scene_obs[begin : begin + 3].copy(), float(sim.scene_obs[begin + 5])
    above = block + [0.0, 0.0, HOVER_M]
    return [Waypoint(above, yaw, OPEN), Waypoint(block, yaw, OPEN), Waypoint(block, yaw, CLOSED, GRASP_STEPS),
            Waypoint(above, yaw, CLOSED, 2 * SETTLE_STEPS)]


def _press_button(sim: CalvinSim) -> list[Waypoint]:
    above = BUTTON_M + [0.0, 0.0, HOVER_M]
    return [Waypoint(above, ACROSS_RAD, CLOSED, GRASP_STEPS), Waypoint(BUTTON_M, ACROSS_RAD, CLOSED, GRASP_STEPS),
            Waypoint(above, ACROSS_RAD, CLOSED)]


def _open_drawer(sim: CalvinSim) -> list[Waypoint]:
    before = DRAWER_HANDLE_M + [0.0, -HOVER_M, 0.2]
    above = DRAWER_HANDLE_M + [0.0, 0.0, HOVER_M]
    pulled = DRAWER_HANDLE_M - [0.0, PULL_M, 0.0]
    return [Waypoint(before, ALONG_RAD, OPEN), Waypoint(above, ALONG_RAD, OPEN),
            Waypoint(DRAWER_HANDLE_M, ALONG_RAD, OPEN), Waypoint(DRAWER_HANDLE_M, ALONG_RAD, CLOSED, GRASP_STEPS),
            Waypoint(pulled, ALONG_RAD, CLOSED, 2 * SETTLE_STEPS)]


SCRIPTS: dict[str, Callable[[CalvinSim], list[Waypoint]]] = {
    "lift_red_block_table": _lift_red_block, "turn_on_led": _press_button, "open_drawer": _open_drawer}

"""A TabletopSim in, the next action row out: scripted experts that see the true state, one per task family.

They keep no memory: each row follows from where things are now, so an expert recovers from any push and can
label noisy rollouts (DART, Laskey et al. 2017). `python -m sim_bridges.tabletop.measure` measures them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim_bridges.tabletop.arm import FINGER_OPEN_M, rotation_matrix, rotation_vector
from sim_bridges.tabletop.scene import BLOCK_HALF_M, DRAWER_TRAVEL_M
from sim_bridges.tabletop.sim import TOOL_DOWN, TabletopSim
from sim_bridges.tabletop.tasks import PUSH_DISTANCE_M, Family
from vla_policy.errors import VlaError

Vector = NDArray[np.float64]
OPEN, CLOSED = 1.0, 0.0
MAX_STEP_M, MAX_TURN_RAD = 0.020, 0.050  # per row of 50 ms: 0.4 m/s, 1 rad/s
GAIN = 0.6  # share of the remaining way in one row
HOVER_M = 0.07  # above the place of contact while coming closer from the side
FUNNEL_M = 0.03  # over this much sideways error the approach sinks from HOVER_M to contact
LIFT_TO_M = 0.14
PUSH_BACKOFF_M = 0.030  # gap between finger and block before a push
FINGER_HALF_M = 0.0125  # half the closed fingers' width along y
PUSH_STEP_M = 0.014
PUSH_HEIGHT_M = 0.022  # of the tool: a little below the middle of a block
PULL_STEP_M = 0.014


class Expert:
    """Acts for the sim's present goal. Raises: VlaError when the sim has no task."""

    def __init__(self, sim: TabletopSim) -> None:
        if sim.goal is None:
            raise VlaError("expert: got a sim without a task, expected one; call reset(task, seed) first")
        self._sim, self._goal = sim, sim.goal
        self._start = sim.target_position()
        self._rule = _RULES[sim.goal.family]

    def act(self) -> Vector:
        """The next row, (7,): x y z [m], rotation vector [rad] within 50 ms in base_link; gripper 0 .. 1."""
        return self._rule(self)

    def _lift(self) -> Vector:
        arm = self._sim.arm
        block, yaw = self._sim.scene.block_pose(self._goal.target.removesuffix("_block"))
        offset = arm.position - block
        near = bool(np.linalg.norm(offset[:2]) < 0.018 and abs(offset[2]) < 0.018)
        finger_m = arm.finger_m
        if near and BLOCK_HALF_M - 0.006 < finger_m < BLOCK_HALF_M + 0.003:
            height_m = max(0.0, LIFT_TO_M - arm.position[2])
            return self._row(np.array([0.0, 0.0, height_m]), 0.0, CLOSED)
        turn = self._yaw_error(yaw)
        closing = near and finger_m < FINGER_OPEN_M - 0.003
        if closing or (np.linalg.norm(offset[:2]) < 0.008 and abs(offset[2]) < 0.008 and abs(turn) < 0.12):
            return self._row(-offset, turn, CLOSED)
        return self._approach(block, yaw, OPEN)

    def _push(self) -> Vector:
        arm, side = self._sim.arm, self._goal.direction
        block, _ = self._sim.scene.block_pose(self._goal.target.removesuffix("_block"))
        moved_m = side * (block[1] - self._start[1])
        behind_m = side * (block[1] - arm.position[1]) - BLOCK_HALF_M - FINGER_HALF_M
        aside_m = arm.position[0] - block[0]
        # Well past the goal: who watches cannot tell a finished push from one not begun: the sim must see it first.
        if moved_m > PUSH_DISTANCE_M + 0.07:
            return self._row(np.array([0.0, 0.0, max(0.0, 0.10 - arm.position[2])]), 0.0, CLOSED)
        low = arm.position[2] < PUSH_HEIGHT_M + 0.015
        if low and abs(aside_m) < 0.030 and -0.015 < behind_m < PUSH_BACKOFF_M + 0.025:
            centred = float(np.clip((0.022 - abs(aside_m)) / 0.012, 0.0, 1.0))  # if not, first aim again
            step = np.array([-aside_m, centred * side * PUSH_STEP_M / GAIN, PUSH_HEIGHT_M - arm.position[2]])
            return self._row(step, 0.0, CLOSED)
        gap_m = BLOCK_HALF_M + FINGER_HALF_M + PUSH_BACKOFF_M
        return self._approach(np.array([block[0], block[1] - side * gap_m, PUSH_HEIGHT_M]), 0.0, CLOSED)

    def _open(self) -> Vector:
        arm, handle = self._sim.arm, self._sim.target_position()
        offset = arm.position - handle
        if self._sim.scene.drawer_opening_m > DRAWER_TRAVEL_M - 0.012:
            return self._row(np.zeros(3), 0.0, CLOSED)
        near = bool(np.linalg.norm(offset[:2]) < 0.03 and abs(offset[2]) < 0.016)
        if near and arm.finger_m < 0.014:
            return self._row(np.array([-offset[0], -PULL_STEP_M / GAIN, -offset[2]]), 0.0, CLOSED)
        closing = near and arm.finger_m < FINGER_OPEN_M - 0.003
        if closing or (np.linalg.norm(offset[:2]) < 0.010 and abs(offset[2]) < 0.010):
            return self._row(-offset, 0.0, CLOSED)
        return self._approach(handle, 0.0, OPEN)

    def _close(self) -> Vector:
        arm, handle = self._sim.arm, self._sim.target_position()
        before_m = handle[1] - arm.position[1] - FINGER_HALF_M - 0.008
        aside_m = arm.position[0] - handle[0]
        if self._sim.scene.drawer_opening_m < 0.006:
            return self._row(np.zeros(3), 0.0, CLOSED)
        low = arm.position[2] < handle[2] + 0.012
        if low and abs(aside_m) < 0.03 and -0.012 < before_m < PUSH_BACKOFF_M + 0.02:
            step = np.array([-aside_m, PUSH_STEP_M / GAIN, handle[2] - arm.position[2]])
            return self._row(step, 0.0, CLOSED)
        return self._approach(handle - [0.0, PUSH_BACKOFF_M + FINGER_HALF_M + 0.008, 0.0], 0.0, CLOSED)

    def _press(self) -> Vector:
        top = self._sim.target_position()
        down_m = 0.0 if self._sim.scene.button_depth_m > 0.013 else 0.02
        return self._approach(top - [0.0, 0.0, down_m], 0.0, CLOSED)

    def _drawer(self) -> Vector:
        return self._open() if self._goal.direction > 0 else self._close()

    def _approach(self, contact: Vector, yaw: float, gripper: float) -> Vector:
        """Come to a place of contact from above, through a funnel; rise first when low and aside."""
        way = contact - self._sim.arm.position
        sideways_m = float(np.linalg.norm(way[:2]))
        way[2] += HOVER_M * float(np.clip((sideways_m - 0.006) / FUNNEL_M, 0.0, 1.0))
        if sideways_m > 0.02 and way[2] > 0.02:
            way[:2] *= 0.2
        return self._row(way, self._yaw_error(yaw), gripper)

    def _yaw_error(self, yaw: float) -> float:
        forward = self._sim.arm.rotation[:, 0]
        return yaw - float(np.arctan2(forward[1], forward[0]))

    def _row(self, way: Vector, yaw_error: float, gripper: float) -> Vector:
        """Go `way` (3,) m and turn `yaw_error` rad as fast as allowed, while keeping the hand upright."""
        rotation = self._sim.arm.rotation
        yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0])) + yaw_error
        upright = rotation_matrix(np.array([0.0, 0.0, yaw])) @ TOOL_DOWN
        turn = rotation_vector(upright @ rotation.T)
        step, turn = _shorten(GAIN * way, MAX_STEP_M), _shorten(GAIN * turn, MAX_TURN_RAD)
        return np.concatenate([step, turn, [gripper]])


_RULES: dict[Family, Callable[[Expert], Vector]] = {
    Family.LIFT: Expert._lift,
    Family.PUSH: Expert._push,
    Family.DRAWER: Expert._drawer,
    Family.PRESS: Expert._press,
}


def expert(sim: TabletopSim) -> Expert:
    """The expert for the task that `sim` was last reset to."""
    return Expert(sim)


def _shorten(vector: Vector, limit: float) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector if length <= limit else vector * (limit / length)

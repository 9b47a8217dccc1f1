"""A TabletopSim in, action rows out: what all scripted experts do with the hand.

A row is (7,): x y z [m] and a rotation vector [rad] within 50 ms in base_link, then the gripper, 0 closed .. 1 open.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim_bridges.tabletop.arm import FINGER_OPEN_M, rotation_matrix, rotation_vector
from sim_bridges.tabletop.scene import BLOCK_HALF_M, BLOCK_X_M, BLOCK_Y_M, BLOCKS
from sim_bridges.tabletop.sim import TOOL_DOWN, TabletopSim

Vector = NDArray[np.float64]
OPEN, CLOSED = 1.0, 0.0
MAX_STEP_M, MAX_TURN_RAD = 0.020, 0.050  # per row of 50 ms: 0.4 m/s, 1 rad/s
GAIN = 0.6  # share of the remaining way in one row
HOVER_M = 0.07  # above the place of contact while coming closer from the side
FUNNEL_M = 0.03  # over this much sideways error the approach sinks from its hovering height to contact
CLEAR_M = 0.03  # between the tool and the top of what it passes over
FREE_SPOT_M = 0.085  # from other blocks, where one can be put down
LYING_M = BLOCK_HALF_M + 0.006  # centre of a block that lies on the table, at most


class Hand:
    """What an expert knows about the hand and how it moves it."""

    def __init__(self, sim: TabletopSim) -> None:
        self.sim, self.scene, self.arm = sim, sim.scene, sim.arm

    def holds(self, colour: str) -> bool:
        """Whether a block is between the closed fingers."""
        offset = self.arm.position - self.scene.block_pose(colour)[0]
        near = np.linalg.norm(offset[:2]) < 0.018 and abs(offset[2]) < 0.018
        return bool(near) and BLOCK_HALF_M - 0.006 < self.arm.finger_m < BLOCK_HALF_M + 0.003

    def held(self) -> str | None:
        """The colour of the block in the hand."""
        return next((colour for colour in BLOCKS if self.holds(colour)), None)

    def row(self, way: Vector, yaw_error: float, gripper: float) -> Vector:
        """Go `way` (3,) m and turn `yaw_error` rad as fast as allowed, while keeping the hand upright."""
        rotation = self.arm.rotation
        yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0])) + yaw_error
        upright = rotation_matrix(np.array([0.0, 0.0, yaw])) @ TOOL_DOWN
        turn = rotation_vector(upright @ rotation.T)
        step, turn = _shorten(GAIN * way, MAX_STEP_M), _shorten(GAIN * turn, MAX_TURN_RAD)
        return np.concatenate([step, turn, [gripper]])

    def stay(self, gripper: float) -> Vector:
        """Where it is, upright."""
        return self.row(np.zeros(3), 0.0, gripper)

    def rise(self, height_m: float, gripper: float) -> Vector:
        """Straight up to a height of the tool, or stay."""
        return self.row(np.array([0.0, 0.0, max(0.0, height_m - self.arm.position[2])]), 0.0, gripper)

    def approach(self, contact: Vector, yaw: float, gripper: float) -> Vector:
        """Come to a place of contact from above, through a funnel; rise first when low and aside."""
        way = contact - self.arm.position
        sideways_m = float(np.linalg.norm(way[:2]))
        hover_m = max(HOVER_M, self.highest_m() + CLEAR_M - contact[2])
        way[2] += hover_m * float(np.clip((sideways_m - 0.006) / FUNNEL_M, 0.0, 1.0))
        if sideways_m > 0.02 and way[2] > 0.02:
            way[:2] *= 0.2 if way[2] < 0.05 else 0.0  # straight up from beside a block: it must not be shoved on
        return self.row(way, self.yaw_error(yaw), gripper)

    def carry(self, colour: str, place: Vector, height_m: float) -> Vector:
        """Bring the block in the hand to a place, the tool at `height_m` on the way and at the place's height there."""
        way = place - self.arm.position
        way[:2] = (place - self.scene.block_pose(colour)[0])[:2]  # it may have slipped in the grip
        sideways_m = float(np.linalg.norm(way[:2]))
        way[2] += (height_m - place[2]) * float(np.clip((sideways_m - 0.008) / FUNNEL_M, 0.0, 1.0))
        if sideways_m > 0.03 and way[2] > 0.02:
            way[:2] *= 0.15
        return self.row(way, self.yaw_error(0.0), CLOSED)

    def release(self, wanted: str = "") -> Vector | None:
        """The row that lets go of what the hand has round its fingers; None when they are free.

        wanted: what may stay there, a key of `Scene.positions`.
        """
        held = self.held()
        if held is not None and f"{held}_block" != wanted:
            return self._put_down(held)
        around = self._around(wanted)
        if around is None:
            return None
        if self.arm.finger_m < FINGER_OPEN_M - 0.008:
            return self.stay(OPEN)
        return self.row(np.array([0.0, 0.0, 0.05]), 0.0, OPEN)

    def highest_m(self) -> float:
        """Top of the highest block that is not in the hand."""
        position = self.arm.position
        centres = [self.scene.block_pose(colour)[0] for colour in BLOCKS]
        return max((float(c[2]) + BLOCK_HALF_M for c in centres if np.linalg.norm(c - position) > 0.03), default=0.0)

    def yaw_error(self, yaw: float) -> float:
        """Turn [rad] about the vertical to a yaw of the hand."""
        forward = self.arm.rotation[:, 0]
        return yaw - float(np.arctan2(forward[1], forward[0]))

    def _around(self, wanted: str) -> str | None:
        """What stands between the fingers, open or closed, without being wanted."""
        for name, place in self.scene.positions().items():
            away = self.arm.position - place
            if name == wanted:
                continue
            if name.endswith("_block") and np.linalg.norm(away[:2]) < 0.031 and away[2] < 0.040:
                return name
            if name == "drawer" and abs(away[0]) < 0.065 and abs(away[1]) < 0.012 and abs(away[2]) < 0.024:
                return name
        return None

    def _put_down(self, colour: str) -> Vector:
        """Lower a block to the nearest free spot of the table and open the fingers."""
        block = self.scene.block_pose(colour)[0]
        spot = self._free_spot(colour, block)
        if min(block[2], self.arm.position[2]) < LYING_M:
            return self.stay(OPEN)
        return self.carry(colour, np.array([*spot, BLOCK_HALF_M - 0.001]), max(0.11, self.highest_m() + 2 * CLEAR_M))

    def _free_spot(self, colour: str, block: Vector) -> Vector:
        others = [self.scene.block_pose(other)[0][:2] for other in BLOCKS if other != colour]
        grid = np.stack(np.meshgrid(np.linspace(*BLOCK_X_M, 8), np.linspace(*BLOCK_Y_M, 10)), -1).reshape(-1, 2)
        spots = np.concatenate([block[None, :2], grid])
        gaps = np.linalg.norm(spots[:, None] - np.array(others), axis=-1).min(axis=1)
        free = spots[gaps > FREE_SPOT_M - 0.01]
        free = free if len(free) else spots
        return free[np.argmin(np.linalg.norm(free - block[:2], axis=1))]


def _shorten(vector: Vector, limit: float) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector if length <= limit else vector * (limit / length)

"""An operator's wish and the robot's state in, the arm's rows of an action chunk out, by the contract's action kind.

Shares of a wish are shares of the contract's speed limits, so a wish never asks for more than the guard lets pass. What
is integrated stays near the robot: a blocked arm does not pile up a way that it would catch up with later.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.limits import shorten
from vla_policy.action.rotation import rotate, rotation_between, rotvec_from_quaternion
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.teleop.wish import Vector, Wish
from vla_policy.types import NS_PER_S, Observation

LEASH_S = 0.5  # a target is at most this long, at full speed, ahead of the robot


class Planner(Protocol):
    """Rows are those of `ActionChunk.values` without the gripper."""

    def begin(self, state: Observation, wish: Wish) -> str | None:
        """The operator begins to drive from here; one sentence where that would be a jump."""

    def rows(self, wish: Wish, state: Observation, ahead_s: Vector, elapsed_s: float) -> NDArray[np.float64]:
        """Rows (K, arm columns) for the times `ahead_s` (K,) from now, of which those that have passed are negative.

        elapsed_s: time since the rows before, for which the wish held.
        """


def make_planner(contract: RobotContract, engage_within_rad: float | None = None) -> Planner:
    """The planner for a contract's action kind. engage_within_rad: of a leader arm, which gives targets."""
    if engage_within_rad is not None:
        return LeaderPlanner(contract, engage_within_rad)
    kinds = {ActionKind.EE_DELTA: TwistPlanner, ActionKind.EE_POSE: PosePlanner,
             ActionKind.JOINT_POSITION: JogPlanner}
    return kinds[contract.action.kind](contract)


class TwistPlanner:
    """ee_delta: the wish is a twist; every row is its displacement over an action period."""

    def __init__(self, contract: RobotContract) -> None:
        self._row_s = contract.action_dt_ns / NS_PER_S
        self._contract = contract

    def begin(self, state: Observation, wish: Wish) -> str | None:
        """A twist starts anywhere."""
        return None

    def rows(self, wish: Wish, state: Observation, ahead_s: Vector, elapsed_s: float) -> NDArray[np.float64]:
        """Displacements (K, 6) [m, rad]."""
        return np.tile(_twist(self._contract, wish) * self._row_s, (len(ahead_s), 1))


class PosePlanner:
    """ee_pose: the wish is a twist that moves a target pose, at first where the tool is."""

    def __init__(self, contract: RobotContract) -> None:
        self._contract = contract
        limits = contract.limits
        self._leash_m = limits.linear_velocity_m_s * LEASH_S
        self._leash_rad = limits.angular_velocity_rad_s * LEASH_S
        box = limits.workspace
        self._low, self._high = np.array([box.x, box.y, box.z], dtype=np.float64).T
        self._position, self._quaternion = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])

    def begin(self, state: Observation, wish: Wish) -> str | None:
        """The target is where the tool is."""
        self._position, self._quaternion = state.pose.position.copy(), state.pose.quaternion.copy()
        return None

    def rows(self, wish: Wish, state: Observation, ahead_s: Vector, elapsed_s: float) -> NDArray[np.float64]:
        """Positions [m] and rotation vectors [rad] (K, 6): the target of now, and on from it."""
        twist = _twist(self._contract, wish)
        here = state.pose
        moved = self._position + twist[:3] * elapsed_s
        position = here.position + shorten(moved - here.position, self._leash_m)
        # Outside the box the way back is free, further out there is none.
        self._position = np.clip(position, np.minimum(self._low, here.position), np.maximum(self._high, here.position))
        turned = rotate(self._quaternion, twist[3:] * elapsed_s)
        self._quaternion = rotate(here.quaternion, shorten(rotation_between(here.quaternion, turned), self._leash_rad))
        rows = []
        for ahead in np.maximum(ahead_s, 0.0):
            position = np.clip(self._position + twist[:3] * ahead, np.minimum(self._low, self._position),
                               np.maximum(self._high, self._position))
            rows.append([*position, *rotvec_from_quaternion(rotate(self._quaternion, twist[3:] * ahead))])
        return np.array(rows)


class JogPlanner:
    """joint_position: the wish is a speed for each joint that moves its target, at first where the joint is."""

    def __init__(self, contract: RobotContract) -> None:
        limits = contract.limits
        self._index = [contract.joints.names.index(name) for name in contract.action.joints]
        self._low, self._high = np.array(limits.joint_position, dtype=np.float64).T
        self._velocity = np.array(limits.joint_velocity, dtype=np.float64)
        self._target = np.zeros(len(self._index))

    def begin(self, state: Observation, wish: Wish) -> str | None:
        """The targets are where the joints are."""
        self._target = self._joints(state)
        return None

    def rows(self, wish: Wish, state: Observation, ahead_s: Vector, elapsed_s: float) -> NDArray[np.float64]:
        """Joint targets (K, J) [rad]: those of now, and on from them."""
        speed = wish.motion * self._velocity
        self._target = self._near(self._target + speed * elapsed_s, state)
        ahead = self._target + speed * np.maximum(ahead_s, 0.0)[:, None]
        return np.clip(ahead, np.minimum(self._low, self._target), np.maximum(self._high, self._target))

    def _near(self, target: Vector, state: Observation) -> Vector:
        """The target within the joints' ranges and the leash; a joint outside its range may only come back."""
        joints, leash = self._joints(state), self._velocity * LEASH_S
        target = np.clip(target, joints - leash, joints + leash)
        return np.clip(target, np.minimum(self._low, joints), np.maximum(self._high, joints))

    def _joints(self, state: Observation) -> Vector:
        return state.joints[self._index].astype(np.float64)


class LeaderPlanner(JogPlanner):
    """joint_position: the targets are a leader's, followed no faster than the joints may move."""

    def __init__(self, contract: RobotContract, engage_within_rad: float) -> None:
        super().__init__(contract)
        self._names = contract.action.joints
        self._engage_within_rad = engage_within_rad

    def begin(self, state: Observation, wish: Wish) -> str | None:
        """The follower must stand near the leader, or it would jump; the sentence shows every joint that is off."""
        super().begin(state, wish)
        off = wish.targets - self._target
        far = [f"{name} {way:+.2f} rad" for name, way in zip(self._names, off, strict=True)
               if abs(way) > self._engage_within_rad]
        if not far:
            return None
        return (f"the leader is not where the follower is: got {', '.join(far)}, expected at most "
                f"{self._engage_within_rad:g} rad; move the leader there")

    def rows(self, wish: Wish, state: Observation, ahead_s: Vector, elapsed_s: float) -> NDArray[np.float64]:
        """Joint targets (K, J) [rad], the same in every row: nobody knows where the leader goes."""
        step = self._velocity * elapsed_s
        self._target = self._near(np.clip(wish.targets, self._target - step, self._target + step), state)
        return np.tile(self._target, (len(ahead_s), 1))


def _twist(contract: RobotContract, wish: Wish) -> Vector:
    """The twist (6,) of a wish [m/s, rad/s]; diagonals are no faster than straight lines."""
    limits = contract.limits
    return np.concatenate([shorten(wish.motion[:3], 1.0) * limits.linear_velocity_m_s,
                           shorten(wish.motion[3:], 1.0) * limits.angular_velocity_rad_s])

"""Commands of a contract in, CALVIN's own actions out, and CALVIN's Euler angles to quaternions and back.

CALVIN's relative action is seven numbers: a step of the tool's target in x y z and in the three Euler angles, 1
being 20 mm and 0.05 rad, and the gripper, -1 closed or 1 open. Its angles turn about the fixed x, then y, then z
axis (pybullet), and a step is added to each angle by itself; the contract's rotation vector is not that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import multiply, quaternion_from_rotvec, rotate

Vector = NDArray[np.float64]
OPEN_FROM = 0.5  # a gripper opening of at least this opens it


def gripper_action(opening: float) -> int:
    """Opening 0 .. 1 -> CALVIN's 1 open or -1 closed."""
    return 1 if opening >= OPEN_FROM else -1


def relative_action(twist: Vector, opening: float, period_s: float, robot: Any) -> Vector:
    """Twist (6,) in m/s and rad/s held for `period_s` -> relative action (7,).

    robot: calvin_env's, whose target angles the turn begins from. A turn of zero gives exactly zero.
    """
    per_m = robot.max_rel_pos * robot.magic_scaling_factor_pos
    per_rad = robot.max_rel_orn * robot.magic_scaling_factor_orn
    turn = euler_step(np.asarray(robot.target_orn, np.float64), twist[3:] * period_s)
    return np.concatenate([twist[:3] * period_s / per_m, turn / per_rad, [gripper_action(opening)]])


def absolute_action(pose: Vector, opening: float) -> tuple[Vector, Vector, int]:
    """Pose (7,), m and quaternion xyzw -> absolute action: position (3,), quaternion (4,), gripper."""
    return pose[:3], pose[3:], gripper_action(opening)


def euler_step(euler: Vector, rotvec: Vector) -> Vector:
    """By how much each Euler angle changes (3,) when an orientation is turned by `rotvec` (3,) [rad]."""
    if not rotvec.any():
        return np.zeros(3)
    change = euler_from_quaternion(rotate(quaternion_from_euler(euler), rotvec)) - euler
    return (change + np.pi) % (2 * np.pi) - np.pi  # the targets run on beyond half a turn


def quaternion_from_euler(euler: Vector) -> Vector:
    """Angles (3,) about the fixed x, then y, then z axis [rad] -> quaternion (4,) xyzw."""
    x, y, z = (quaternion_from_rotvec(axis * angle) for axis, angle in zip(np.eye(3), euler, strict=True))
    return multiply(z, multiply(y, x))


def euler_from_quaternion(quaternion: Vector) -> Vector:
    """Quaternion (4,) xyzw -> angles (3,) about the fixed x, then y, then z axis [rad], y in [-pi/2, pi/2]."""
    x, y, z, w = quaternion
    return np.array([np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
                     np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0)),
                     np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))])

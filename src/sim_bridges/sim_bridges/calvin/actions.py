"""Commands of a contract in, CALVIN's own actions out, and CALVIN's Euler angles to quaternions.

CALVIN's relative action is seven numbers: a step of the tool's target in x y z and in the three Euler angles, 1
being 20 mm and 0.05 rad, and the gripper, -1 closed or 1 open. Its angles turn about the fixed x, then y, then z
axis (pybullet), and a step is added to each angle by itself; the contract's rotation vector is not that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import rotate
from vla_policy.action.rotation_forms import quaternion_from, rotation_as

Vector = NDArray[np.float64]

EULER = "euler_xyz"  # CALVIN's angles, in the words of `vla_policy.action.rotation_forms`
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
    change = rotation_as(EULER, rotate(quaternion_from_euler(euler), rotvec)) - euler
    return (change + np.pi) % (2 * np.pi) - np.pi  # the targets run on beyond half a turn


def quaternion_from_euler(euler: Vector) -> Vector:
    """CALVIN's Euler angles (3,) [rad] -> quaternion (4,) xyzw."""
    return quaternion_from(EULER, np.asarray(euler, np.float64))

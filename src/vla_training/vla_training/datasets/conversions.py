"""Rotations, motions, units and rates of other conventions in, those of a robot contract out, and back; all exact.

Arrays are float64 and may have leading axes. Quaternions are (x, y, z, w), angles rad. A motion is (position (...,
3), quaternion (..., 4)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import inverse, multiply, quaternion_from_rotvec, rotvec_from_quaternion

Array = NDArray[np.float64]
Motion = tuple[Array, Array]

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
RADIANS = {"rad": 1.0, "deg": np.pi / 180}


def rotate(quaternion: Array, vectors: Array) -> Array:
    """Vectors (..., 3) turned by unit quaternions (..., 4)."""
    axis, w = quaternion[..., :3], quaternion[..., 3:]
    twice = 2 * np.cross(axis, vectors)
    return vectors + w * twice + np.cross(axis, twice)


def moved(pose: Motion, change: Motion) -> Motion:
    """Poses after a change given about the base frame's axes: positions add, the change turns after the pose."""
    return pose[0] + change[0], multiply(change[1], pose[1])


def change_between(start: Motion, end: Motion) -> Motion:
    """The change about the base frame's axes that moves `start` to `end`; the inverse of `moved`."""
    return end[0] - start[0], multiply(end[1], inverse(start[1]))


def tool_to_base(change: Motion, tool: Array) -> Motion:
    """A change told in the axes of a tool that stands at `tool` (..., 4), told in those of the base."""
    return rotate(tool, change[0]), multiply(multiply(tool, change[1]), inverse(tool))


def gripper_fraction(published: Array, closed_at: float, open_at: float) -> Array:
    """Published gripper values (...) -> 0 closed .. 1 open, not clipped."""
    return (published - closed_at) / (open_at - closed_at)


def gripper_from_changes(published: Array, closed_at: float, open_at: float) -> Array:
    """Commands (T,) that ask for a change or, in between, for none -> 0 or 1, what the gripper was last asked for.

    Before the first command it is the opposite of what that asks for; open where none comes.
    """
    fraction = gripper_fraction(published, closed_at, open_at)
    asked = np.where(fraction > 0.75, 1.0, np.where(fraction < 0.25, 0.0, np.nan))
    known = np.flatnonzero(~np.isnan(asked))
    if not len(known):
        return np.ones(len(asked))
    last = np.maximum.accumulate(np.where(np.isnan(asked), -1, np.arange(len(asked))))
    return np.where(last < 0, 1.0 - asked[known[0]], asked[np.maximum(last, 0)])


def split_changes(position: Array, quaternion: Array, parts: int) -> Motion:
    """Changes (T, ...) -> (T * parts, ...): each in equal parts that together are the change."""
    turn = rotvec_from_quaternion(quaternion) / parts
    return (np.repeat(position / parts, parts, 0), np.repeat(quaternion_from_rotvec(turn), parts, 0))


def join_changes(position: Array, quaternion: Array, parts: int) -> Motion:
    """Changes (T, ...) -> (T - parts + 1, ...): row i is the changes i to i + parts - 1, one after the other."""
    count = len(position) - parts + 1
    total: Motion = position[:count], quaternion[:count]
    for part in range(1, parts):
        total = moved(total, (position[part : part + count], quaternion[part : part + count]))
    return total

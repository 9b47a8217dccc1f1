"""Rotation vectors or quaternions in, the other out. Quaternions are (x, y, z, w), angles in rad."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_SMALL_ANGLE = 1e-9  # below it sin(x) = x to the last bit


def quaternion_from_rotvec(rotvec: Vector) -> Vector:
    """(3,) axis times angle [rad] -> (4,) quaternion."""
    angle = float(np.linalg.norm(rotvec))
    scale = 0.5 if angle < _SMALL_ANGLE else np.sin(angle / 2) / angle
    return np.append(rotvec * scale, np.cos(angle / 2))


def rotvec_from_quaternion(quaternion: Vector) -> Vector:
    """(4,) quaternion -> (3,) axis times angle [rad], the short way round: angle in [0, pi]."""
    quaternion = -quaternion if quaternion[3] < 0 else quaternion
    length = float(np.linalg.norm(quaternion[:3]))
    scale = 2.0 if length < _SMALL_ANGLE else 2 * np.arctan2(length, quaternion[3]) / length
    return quaternion[:3] * scale


def multiply(left: Vector, right: Vector) -> Vector:
    """Hamilton product of two (4,) quaternions: `right` first, then `left`, both about the fixed axes."""
    (x1, y1, z1, w1), (x2, y2, z2, w2) = left, right
    return np.array([w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
                     w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
                     w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
                     w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2])


def rotation_between(start: Vector, end: Vector) -> Vector:
    """(3,) rotation vector about the fixed axes that turns quaternion `start` into `end` [rad]."""
    return rotvec_from_quaternion(multiply(end, start * np.array([-1.0, -1.0, -1.0, 1.0])))


def rotate(start: Vector, rotvec: Vector) -> Vector:
    """Quaternion `start` turned by `rotvec` (3,) about the fixed axes, normalised."""
    turned = multiply(quaternion_from_rotvec(rotvec), start)
    return turned / np.linalg.norm(turned)


def mean_rotvec(rotvecs: Vector, weights: Vector) -> Vector:
    """Weighted mean of (N, 3) nearby rotation vectors [rad] with (N,) weights, as (3,).

    The normalised sum of quaternions, signs aligned with the last (Gramkow, "On averaging rotations", 2001).
    """
    quaternions = np.array([quaternion_from_rotvec(rotvec) for rotvec in rotvecs])
    signs = np.where(quaternions @ quaternions[-1] < 0, -1.0, 1.0)
    mean = (weights * signs) @ quaternions
    return rotvec_from_quaternion(mean / np.linalg.norm(mean))

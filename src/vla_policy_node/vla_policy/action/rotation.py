"""Rotation vectors or quaternions in, the other out. Quaternions are (x, y, z, w), angles in rad."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Array = NDArray[np.float64]  # of any leading axes

_SMALL_ANGLE = 1e-9  # below it sin(x) = x to the last bit


def quaternion_from_rotvec(rotvec: Array) -> Array:
    """(..., 3) axis times angle [rad] -> (..., 4) quaternions."""
    angle = np.linalg.norm(rotvec, axis=-1, keepdims=True)
    scale = np.where(angle < _SMALL_ANGLE, 0.5, np.sin(angle / 2) / np.maximum(angle, _SMALL_ANGLE))
    return np.concatenate([rotvec * scale, np.cos(angle / 2)], -1)


def rotvec_from_quaternion(quaternion: Array) -> Array:
    """(..., 4) quaternions -> (..., 3) axis times angle [rad], the short way round: angle in [0, pi]."""
    quaternion = np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    length = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, quaternion[..., 3:])
    return quaternion[..., :3] * np.where(length < _SMALL_ANGLE, 2.0, angle / np.maximum(length, _SMALL_ANGLE))


def multiply(left: Array, right: Array) -> Array:
    """Hamilton product of quaternions (..., 4): `right` first, then `left`, both about the fixed axes."""
    x1, y1, z1, w1 = np.moveaxis(left, -1, 0)
    x2, y2, z2, w2 = np.moveaxis(right, -1, 0)
    return np.stack([w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
                     w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
                     w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
                     w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2], -1)


def inverse(quaternion: Array) -> Array:
    """Inverse of unit quaternions (..., 4)."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def rotation_between(start: Vector, end: Vector) -> Vector:
    """(3,) rotation vector about the fixed axes that turns quaternion `start` into `end` [rad]."""
    return rotvec_from_quaternion(multiply(end, inverse(start)))


def rotate(start: Vector, rotvec: Vector) -> Vector:
    """Quaternion `start` turned by `rotvec` (3,) about the fixed axes, normalised."""
    turned = multiply(quaternion_from_rotvec(rotvec), start)
    return turned / np.linalg.norm(turned)


def mean_rotvec(rotvecs: Vector, weights: Vector) -> Vector:
    """Weighted mean of (N, 3) nearby rotation vectors [rad] with (N,) weights, as (3,).

    The normalised sum of quaternions, signs aligned with the last (Gramkow, "On averaging rotations", 2001).
    """
    quaternions = quaternion_from_rotvec(rotvecs)
    signs = np.where(quaternions @ quaternions[-1] < 0, -1.0, 1.0)
    mean = (weights * signs) @ quaternions
    return rotvec_from_quaternion(mean / np.linalg.norm(mean))

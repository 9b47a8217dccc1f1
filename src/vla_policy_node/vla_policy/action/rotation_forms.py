"""Rotations as Euler angles, quaternions, matrices or rotation vectors in, unit quaternions (x, y, z, w) out, and back.

Arrays are float64 and may have leading axes; angles are rad. Forms: rotation_vector, quaternion_xyzw, quaternion_wxyz,
matrix (row by row), matrix_columns (the first two), euler_ and an order: `euler_xyz` about the fixed axes, `euler_XYZ`
about the moving ones. Euler angles come from the elements of R = R_i R_j R_k; quaternions from matrices as in Shoemake,
"Quaternions" (1994).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import multiply, quaternion_from_rotvec, rotvec_from_quaternion

Array = NDArray[np.float64]

SIZES = {"quaternion_xyzw": 4, "quaternion_wxyz": 4, "matrix": 9, "matrix_columns": 6}  # all other forms: 3
GIMBAL_LOCK = 1 - 1e-12  # sine of the middle angle from which the outer two turn about one axis


def rotation_size(form: str) -> int:
    """How many numbers a rotation of this form takes."""
    return SIZES.get(form, 3)


def quaternion_from(form: str, values: Array) -> Array:
    """Rotations in one of the forms above -> unit quaternions (..., 4)."""
    if form == "rotation_vector":
        return quaternion_from_rotvec(values)
    if form.startswith("quaternion"):
        quaternion = values if form.endswith("xyzw") else np.roll(values, -1, -1)
        return quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if form.startswith("euler"):
        return _quaternion_from_euler(form[-3:], values)
    if form == "matrix_columns":
        return _quaternion_from_matrix(_orthonormal(values[..., :3], values[..., 3:]))
    return _quaternion_from_matrix(values.reshape(*values.shape[:-1], 3, 3))


def rotation_as(form: str, quaternion: Array) -> Array:
    """Unit quaternions (..., 4) -> rotations in that form, the short way round; the inverse of `quaternion_from`."""
    if form == "rotation_vector":
        return rotvec_from_quaternion(quaternion)
    if form.startswith("quaternion"):
        return quaternion if form.endswith("xyzw") else np.roll(quaternion, 1, -1)
    matrix = matrix_from(quaternion)
    if form.startswith("euler"):
        return _euler_from_matrix(form[-3:], matrix)
    if form == "matrix_columns":
        return np.concatenate([matrix[..., 0], matrix[..., 1]], -1)
    return matrix.reshape(*matrix.shape[:-2], 9)


def matrix_from(quaternion: Array) -> Array:
    """Unit quaternions (..., 4) -> rotation matrices (..., 3, 3)."""
    x, y, z, w = np.moveaxis(quaternion, -1, 0)
    rows = [[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _quaternion_from_euler(order: str, angles: Array) -> Array:
    """Small letters: about the fixed axes, first letter first; capitals: about the moving axes."""
    turns = []
    for number, letter in enumerate(order.lower()):
        half = angles[..., number] / 2
        turn = np.zeros((*half.shape, 4))
        turn[..., "xyz".index(letter)], turn[..., 3] = np.sin(half), np.cos(half)
        turns.append(turn)
    if order.islower():
        turns.reverse()
    return multiply(multiply(turns[0], turns[1]), turns[2])


def _euler_from_matrix(order: str, matrix: Array) -> Array:
    """The middle angle in [-pi/2, pi/2]; in gimbal lock the last angle about a moving axis is 0."""
    moving = order.lower() if order.isupper() else order[::-1]
    i, j, k = ("xyz".index(letter) for letter in moving)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    sine = np.clip(sign * matrix[..., i, k], -1.0, 1.0)
    locked = np.abs(sine) > GIMBAL_LOCK
    first = np.where(locked, np.arctan2(sign * matrix[..., k, j], matrix[..., j, j]),
                     np.arctan2(-sign * matrix[..., j, k], matrix[..., k, k]))
    last = np.where(locked, 0.0, np.arctan2(-sign * matrix[..., i, j], matrix[..., i, i]))
    angles = np.stack([first, np.arcsin(sine), last], -1)
    return angles if order.isupper() else angles[..., ::-1]


def _quaternion_from_matrix(matrix: Array) -> Array:
    """By the largest of the four elements, so that nothing small is divided by."""
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    squares = np.stack([m[..., 0, 0] * 2 - trace, m[..., 1, 1] * 2 - trace, m[..., 2, 2] * 2 - trace, trace], -1)
    products = np.empty((*matrix.shape[:-2], 4, 4))  # 4 q q^T - 1 on the diagonal's terms
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        products[..., a, 3] = products[..., 3, a] = m[..., c, b] - m[..., b, c]
        products[..., a, b] = products[..., b, a] = m[..., a, b] + m[..., b, a]
    for a in range(4):
        products[..., a, a] = 1 + squares[..., a]
    row = np.take_along_axis(products, squares.argmax(-1)[..., None, None], -2)[..., 0, :]
    return row / np.linalg.norm(row, axis=-1, keepdims=True)


def _orthonormal(first: Array, second: Array) -> Array:
    """The rotation matrix whose first two columns point as these (Zhou et al., https://arxiv.org/abs/1812.07035)."""
    x = first / np.linalg.norm(first, axis=-1, keepdims=True)
    y = second - (x * second).sum(-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -1)

"""A twist and a gripper opening in, joint targets out: the arm's Cartesian control law, every 10 ms.

The commanded twist moves a target pose; one step of damped least squares on a kinematic copy of the arm
follows it, and the elbow is drawn gently to its home posture. The target never runs further from the real
tool than a leash. Frames: base_link. The tool frame `tcp` lies between the fingertips, z pointing out of the
hand (down when at home).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim_bridges.tabletop.gl import mujoco
from sim_bridges.tabletop.scene import Scene

CONTROL_S = 0.01
HOME_RAD = np.array([0.0, -0.05, 0.0, -2.45, 0.0, 2.40, 0.7854])
FINGER_OPEN_M = 0.04  # travel of one finger
LEASH_M, LEASH_RAD = 0.03, 0.25
DAMPING = 1e-4  # [m^2, rad^2]
POSTURE_GAIN = 0.02  # share of the way home that the null space goes in one period
ARM = slice(0, 7)
FINGERS = slice(7, 9)


class Arm:
    """Seven joints and two fingers; they come first in the model's coordinates and actuators."""

    def __init__(self, scene: Scene) -> None:
        self._model, self._data = scene.model, scene.data
        self._tcp = self._model.site("tcp").id
        self._ghost = mujoco.MjData(self._model)  # kinematics of the commanded joints
        self._range = self._model.jnt_range[ARM].copy()
        self._jacobian = np.zeros((6, self._model.nv))
        self._target_position = np.zeros(3)
        self._target_rotation = np.eye(3)

    @property
    def position(self) -> NDArray[np.float64]:
        """Tool position (3,) m."""
        return self._data.site_xpos[self._tcp].copy()

    @property
    def rotation(self) -> NDArray[np.float64]:
        """Tool orientation, (3, 3)."""
        return self._data.site_xmat[self._tcp].reshape(3, 3).copy()

    @property
    def finger_m(self) -> float:
        """Travel of one finger, 0 closed .. FINGER_OPEN_M."""
        return float(self._data.qpos[FINGERS.start])

    @property
    def joints(self) -> NDArray[np.float64]:
        """The seven arm joints [rad] and one finger [m], (8,)."""
        return self._data.qpos[:8].copy()

    def teleport(self, position: NDArray[np.float64], rotation: NDArray[np.float64], finger_m: float) -> None:
        """Put the tool at a pose at once and hold it there, as far as the arm reaches."""
        self._ghost.qpos[ARM] = HOME_RAD
        for _ in range(60):
            if self._follow(position, rotation) < 1e-5:
                break
        self._data.qpos[ARM] = self._ghost.qpos[ARM]
        self._data.qpos[FINGERS] = finger_m
        self._data.qvel[:9] = 0.0
        self._data.ctrl[ARM] = self._ghost.qpos[ARM]
        self._data.ctrl[FINGERS] = finger_m
        mujoco.mj_forward(self._model, self._data)
        self._target_position, self._target_rotation = self.position, self.rotation

    def control(self, twist: NDArray[np.float64] | None, gripper: float | None) -> None:
        """Act for one period.

        twist: (6,) m/s and rad/s, None to hold. gripper: 0 closed .. 1 open, None to keep.
        """
        if twist is not None:
            self._target_position = self._target_position + twist[:3] * CONTROL_S
            self._target_rotation = rotation_matrix(twist[3:] * CONTROL_S) @ self._target_rotation
            self._leash()
        self._follow(self._target_position, self._target_rotation)
        self._data.ctrl[ARM] = self._ghost.qpos[ARM]
        if gripper is not None:
            self._data.ctrl[FINGERS] = FINGER_OPEN_M * min(1.0, max(0.0, gripper))

    def _leash(self) -> None:
        offset = self._target_position - self.position
        distance = float(np.linalg.norm(offset))
        if distance > LEASH_M:
            self._target_position = self.position + offset * (LEASH_M / distance)
        turn = rotation_vector(self._target_rotation @ self.rotation.T)
        angle = float(np.linalg.norm(turn))
        if angle > LEASH_RAD:
            self._target_rotation = rotation_matrix(turn * (LEASH_RAD / angle)) @ self.rotation

    def _follow(self, position: NDArray[np.float64], rotation: NDArray[np.float64]) -> float:
        """One damped least-squares step of the ghost towards a pose; the pose error before it [m, rad]."""
        ghost = self._ghost
        mujoco.mj_kinematics(self._model, ghost)
        mujoco.mj_comPos(self._model, ghost)
        mujoco.mj_jacSite(self._model, ghost, self._jacobian[:3], self._jacobian[3:], self._tcp)
        jacobian = self._jacobian[:, ARM]
        turn = rotation_vector(rotation @ ghost.site_xmat[self._tcp].reshape(3, 3).T)
        error = np.concatenate([position - ghost.site_xpos[self._tcp], turn])
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING * np.eye(6))
        home = POSTURE_GAIN * (HOME_RAD - ghost.qpos[ARM])
        step = inverse @ error + home - inverse @ (jacobian @ home)
        ghost.qpos[ARM] = np.clip(ghost.qpos[ARM] + step, self._range[:, 0], self._range[:, 1])
        return float(np.linalg.norm(error))


def rotation_matrix(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation vector (3,) rad to matrix (3, 3)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    quaternion, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_axisAngle2Quat(quaternion, vector / angle, angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def rotation_vector(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) to the shortest rotation vector (3,) rad."""
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, matrix.ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector

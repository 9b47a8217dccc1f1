"""An Observation in, the vector of what the robot feels out: one function for training and serving."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import ContractError, ObservationError, nearest
from vla_policy.types import Observation, Pose

POSITION_NAMES = ("x", "y", "z")
ROTATION_NAMES = ("r11", "r21", "r31", "r12", "r22", "r32")


def proprioception_names(contract: RobotContract, joint_names: Sequence[str]) -> tuple[str, ...]:
    """Names of the values of `proprioception`, in order.

    Raises: ContractError for an unknown joint or nothing to feel.
    """
    for name in joint_names:
        if name not in contract.joints.names:
            raise ContractError(f"proprioception_joints: '{name}' is not among the joints of contract "
                                f"'{contract.name}'; {nearest(name, contract.joints.names)}")
    names = (POSITION_NAMES + ROTATION_NAMES if contract.pose else ()) + tuple(joint_names)
    if not names:
        raise ContractError(f"proprioception: contract '{contract.name}' has no pose and the model names no "
                            "joints; name some in proprioception_joints, or set proprioception false")
    return names


def proprioception(contract: RobotContract, observation: Observation,
                   joint_names: Sequence[str]) -> NDArray[np.float32]:
    """float32 (P,): tool position [m] and rotation in the base frame, if there is a pose; then the joints.

    The rotation is the first two columns of its matrix (Zhou et al., https://arxiv.org/abs/1812.07035): it
    has no jumps.
    joint_names: of the contract's joints [rad or m]. Raises: ObservationError where the pose is missing or
    not finite.
    """
    values = []
    if contract.pose:
        if observation.pose is None:
            raise ObservationError(f"pose: missing at {observation.stamp_ns} ns; contract '{contract.name}' "
                                   f"has one and the model feels it; publish it on {contract.pose.topic}")
        values += [observation.pose.position, rotation_6d(observation.pose)]
    values.append(observation.joints[[contract.joints.names.index(name) for name in joint_names]])
    vector = np.concatenate(values).astype(np.float32)
    if not np.isfinite(vector).all():
        names = proprioception_names(contract, joint_names)
        bad = [name for name, value in zip(names, vector, strict=True) if not np.isfinite(value)]
        raise ObservationError(f"proprioception: {', '.join(bad)} not finite at {observation.stamp_ns} ns; "
                               "expected numbers; check the robot's driver")
    return vector


def rotation_6d(pose: Pose) -> NDArray[np.float64]:
    """First two columns of the rotation matrix of a unit quaternion xyzw, column after column, (6,)."""
    x, y, z, w = pose.quaternion
    return np.array([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w),
                     2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)])

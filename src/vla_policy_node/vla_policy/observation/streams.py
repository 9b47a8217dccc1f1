"""A contract in, the topics of its observations and how their messages are read out; for the node and recordings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.messages import image_to_array, joint_state_to_array, pose_to_pose
from vla_policy.observation.buffer import JOINTS, POSE, Sample, camera_channel
from vla_policy.types import Observation, Pose

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINT_STATE, POSE_STAMPED = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped"


def message_types(contract: RobotContract) -> dict[str, tuple[str, str]]:
    """Channel -> (topic, type of its messages)."""
    types = {
        camera_channel(name): (camera.topic, COMPRESSED_IMAGE if camera.compressed else IMAGE)
        for name, camera in contract.cameras.items()
    }
    types[JOINTS] = (contract.joints.topic, JOINT_STATE)
    if contract.pose is not None:
        types[POSE] = (contract.pose.topic, POSE_STAMPED)
    return types


def concerns(contract: RobotContract, channel: str, msg: Any) -> bool:
    """False for a message of another device on the same topic, e.g. joints of a gripper's own driver."""
    return channel != JOINTS or not set(contract.joints.names).isdisjoint(msg.name)


def decode_sample(contract: RobotContract, sample: Sample) -> Observation:
    """Messages to arrays. Raises: ObservationError for what the contract refuses: size, encoding, joint, frame."""
    images = {
        name: image_to_array(sample.payloads[camera_channel(name)], camera) for name, camera in contract.cameras.items()
    }
    return Observation(sample.asof_ns, images, *decode_state(contract, sample.payloads))


def decode_state(contract: RobotContract, payloads: Mapping[str, Any]) -> tuple[NDArray[np.float64], Pose | None]:
    """Joints, in the contract's order, and pose among the payloads of a sample. Raises: ObservationError."""
    joints = joint_state_to_array(payloads[JOINTS], contract.joints.names, contract.joints.topic)
    if contract.pose is None:
        return joints, None
    return joints, pose_to_pose(payloads[POSE], contract.base_frame, contract.pose.topic)

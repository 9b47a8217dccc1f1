"""The contract's joint and pose topics in, the newest state of the robot out, as an Observation without images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from vla_policy.contract import RobotContract
from vla_policy.errors import ObservationError
from vla_policy.messages import joint_state_to_array, pose_to_pose, stamp_to_ns
from vla_policy.types import Observation, Pose
from vla_policy_node.pace import Pace


class RobotState:
    """Subscriptions to the robot's state. `on_state()` is called after each message that could be read."""

    def __init__(self, node: Node, contract: RobotContract, pace: Pace, on_state: Callable[[], None]) -> None:
        self._node = node
        self._contract = contract
        self._on_state = on_state
        self._joints: tuple[int, NDArray[np.float64]] | None = None
        self._pose: tuple[int, Pose] | None = None
        self._complaints: dict[str, str] = {}
        node.create_subscription(JointState, contract.joints.topic, self._on_joints, pace.sensor_qos)
        if contract.pose is not None:
            node.create_subscription(PoseStamped, contract.pose.topic, self._on_pose, pace.sensor_qos)

    @property
    def newest(self) -> Observation | None:
        """The newest state, as old as its oldest part; None until every part came."""
        if self._joints is None:
            return None
        stamp_ns, joints = self._joints
        if self._contract.pose is None:
            return Observation(stamp_ns, {}, joints, None)
        if self._pose is None:
            return None
        return Observation(min(stamp_ns, self._pose[0]), {}, joints, self._pose[1])

    @property
    def simultaneous(self) -> Observation | None:
        """The newest state if all its parts are of one instant, as a simulator in lockstep sends them."""
        parts = {part[0] for part in (self._joints, self._pose) if part is not None}
        return self.newest if len(parts) == 1 else None

    def _on_joints(self, msg: JointState) -> None:
        topic, names = self._contract.joints.topic, self._contract.joints.names
        if not set(names) & set(msg.name):
            return  # another device on the same topic, e.g. a gripper's own driver
        joints = self._read(topic, lambda: joint_state_to_array(msg, names, topic))
        if joints is not None:
            self._joints = (stamp_to_ns(msg.header.stamp), joints)
            self._on_state()

    def _on_pose(self, msg: PoseStamped) -> None:
        topic = self._contract.pose.topic
        pose = self._read(topic, lambda: pose_to_pose(msg, self._contract.base_frame, topic))
        if pose is not None:
            self._pose = (stamp_to_ns(msg.header.stamp), pose)
            self._on_state()

    def _read(self, topic: str, read: Callable[[], Any]) -> Any:
        """What `read` returns; None, and one log line per cause, for a message that cannot be used."""
        try:
            value = read()
        except ObservationError as problem:
            # The words hold changing numbers; a cause is known by what stands before them.
            cause = str(problem).split("got", 1)[0]
            if self._complaints.get(topic) != cause:
                self._node.get_logger().error(f"state message ignored: {problem}")
            self._complaints[topic] = cause
            return None
        if self._complaints.pop(topic, None) is not None:
            self._node.get_logger().info(f"{topic}: messages can be read again")
        return value

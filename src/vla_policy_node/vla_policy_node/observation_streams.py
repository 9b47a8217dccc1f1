"""The contract's camera, joint and pose topics in, Observations out: callbacks only store, decoding on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_policy.contract import RobotContract
from vla_policy.observation.buffer import JOINTS, POSE, ObservationBuffer, Reason, Sample, camera_channel, channels_of
from vla_policy.types import Observation
from vla_policy_node.messages import image_to_array, joint_state_to_array, pose_to_pose, stamp_to_ns
from vla_policy_node.pace import Pace


class ObservationStreams:
    """Subscriptions that fill an ObservationBuffer. `on_arrival()` is called after each accepted message."""

    def __init__(self, node: Node, contract: RobotContract, pace: Pace, on_arrival: Callable[[], None]) -> None:
        self.buffer = ObservationBuffer(channels_of(contract))
        self._node = node
        self._contract = contract
        self._pace = pace
        self._on_arrival = on_arrival
        self._complained: dict[str, Reason] = {}
        self._subscriptions = [
            self._subscribe(CompressedImage if camera.compressed else Image, camera.topic, camera_channel(name))
            for name, camera in contract.cameras.items()
        ]
        self._subscriptions.append(self._subscribe(JointState, contract.joints.topic, JOINTS))
        if contract.pose is not None:
            self._subscriptions.append(self._subscribe(PoseStamped, contract.pose.topic, POSE))

    def decode(self, sample: Sample) -> Observation:
        """Messages to arrays. Raises: ObservationError for what the contract refuses: size, encoding, joint, frame."""
        contract, payloads = self._contract, sample.payloads
        images = {name: image_to_array(payloads[camera_channel(name)], camera)
                  for name, camera in contract.cameras.items()}
        joints = joint_state_to_array(payloads[JOINTS], contract.joints.names, contract.joints.topic)
        pose = None
        if contract.pose is not None:
            pose = pose_to_pose(payloads[POSE], contract.base_frame, contract.pose.topic)
        return Observation(sample.asof_ns, images, joints, pose)

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _subscribe(self, kind: type, topic: str, channel: str) -> Any:
        return self._node.create_subscription(kind, topic, lambda msg: self._store(channel, msg), self._pace.sensor_qos)

    def _store(self, channel: str, msg: Any) -> None:
        if channel == JOINTS and set(self._contract.joints.names).isdisjoint(msg.name):
            return  # another device on the same topic, e.g. a gripper's own driver
        now_ns = self._node.get_clock().now().nanoseconds
        rejection = self.buffer.push(channel, stamp_to_ns(msg.header.stamp), msg, now_ns)
        if rejection is None:
            self._complained.pop(channel, None)
            self._on_arrival()
        elif self._is_news(channel, rejection.reason):
            self._node.get_logger().warning(rejection.message)

    def _is_news(self, channel: str, reason: Reason) -> bool:
        """Each cause is logged once until the channel recovers; a waiting simulator repeats its frames on purpose."""
        if reason is Reason.DUPLICATE and self._pace is Pace.LOCKSTEP:
            return False
        news = self._complained.get(channel) is not reason
        self._complained[channel] = reason
        return news

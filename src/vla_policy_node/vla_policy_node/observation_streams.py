"""The contract's camera, joint and pose topics in, Observations out: callbacks only store, decoding on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_policy.contract import RobotContract
from vla_policy.messages import stamp_to_ns
from vla_policy.observation.buffer import ObservationBuffer, Reason, Sample, channels_of
from vla_policy.observation.streams import (
    COMPRESSED_IMAGE,
    IMAGE,
    JOINT_STATE,
    POSE_STAMPED,
    concerns,
    decode_sample,
    message_types,
)
from vla_policy.types import Observation
from vla_policy_node.pace import Pace

KINDS = {IMAGE: Image, COMPRESSED_IMAGE: CompressedImage, JOINT_STATE: JointState, POSE_STAMPED: PoseStamped}


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
            self._subscribe(KINDS[kind], topic, channel) for channel, (topic, kind) in message_types(contract).items()
        ]

    def decode(self, sample: Sample) -> Observation:
        """Messages to arrays. Raises: ObservationError for what the contract refuses: size, encoding, joint, frame."""
        return decode_sample(self._contract, sample)

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _subscribe(self, kind: type, topic: str, channel: str) -> Any:
        return self._node.create_subscription(kind, topic, lambda msg: self._store(channel, msg), self._pace.sensor_qos)

    def _store(self, channel: str, msg: Any) -> None:
        if not concerns(self._contract, channel, msg):
            return
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

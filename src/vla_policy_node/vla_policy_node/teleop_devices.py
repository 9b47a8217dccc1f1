"""A device's mapping and its topics in, an operator who hears its wishes and a list of what was pressed out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState, Joy

from vla_policy.contract import RobotContract
from vla_policy.teleop.inputs import Inputs
from vla_policy.teleop.keyboard import KeyReader
from vla_policy.teleop.leader import LeaderReader
from vla_policy.teleop.mapping import KeyboardMapping, LeaderMapping, Mapping, PadMapping
from vla_policy.teleop.operator import Operator
from vla_policy.teleop.pad import PadReader
from vla_policy.teleop.wish import Press
from vla_policy_node.pace import RELIABLE

# Best effort hears every driver, and what repeats may miss a message. Of what is told once none may be missed. Deep, so
# that a short press is not lost while the machine is busy.
REPEATED = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
AXES_MESSAGES = {"sensor_msgs/msg/Joy": Joy, "geometry_msgs/msg/Twist": Twist,
                 "geometry_msgs/msg/TwistStamped": TwistStamped}


class Keyboard:
    """Keys that a terminal read; `reader.hear` takes them."""

    def __init__(self, mapping: KeyboardMapping, contract: RobotContract) -> None:
        self.reader = KeyReader(mapping, contract)
        self.take_presses = self.reader.take_presses

    def tell(self, operator: Operator) -> None:
        """A terminal that is open is never silent: no key is a wish too."""
        now_ns = time.monotonic_ns()
        operator.hear(self.reader.wish(now_ns), now_ns)


class TopicDevice:
    """A pad or a leader arm on its topics. `on_message()` is called after each message."""

    def __init__(self, node: Node, mapping: PadMapping | LeaderMapping, contract: RobotContract,
                 on_message: Callable[[], None]) -> None:
        self._node, self._on_message = node, on_message
        source = mapping.axes.topic if isinstance(mapping, PadMapping) else mapping.topic
        buttons = mapping.buttons
        self._repeating = [source] + ([buttons.topic] if buttons.repeats else [])
        self._inputs = Inputs(self._repeating)
        if isinstance(mapping, PadMapping):
            reader = self._reader = PadReader(mapping, contract)
            kind = AXES_MESSAGES[mapping.axes.type]
            if source == buttons.topic:
                self._subscribe(Joy, source, lambda msg: (reader.hear_axes(msg.axes), reader.buttons.hear(msg.buttons)))
                return
            self._subscribe(kind, source, lambda msg: reader.hear_axes(axes_of(msg)))
        else:
            leader = self._reader = LeaderReader(mapping, contract)
            self._subscribe(JointState, source, lambda msg: leader.hear_joints(msg.name, msg.position))
        self._subscribe(Joy, buttons.topic, lambda msg: self._reader.buttons.hear(msg.buttons))

    def _subscribe(self, kind: type, topic: str, read: Callable[[Any], Any]) -> None:
        def take(msg: Any) -> None:
            self._inputs.take(topic, lambda: read(msg), time.monotonic_ns())
            self._on_message()

        self._node.create_subscription(kind, topic, take, REPEATED if topic in self._repeating else RELIABLE)

    def tell(self, operator: Operator) -> None:
        """What was heard last and when; what cannot be read is refused."""
        if self._inputs.mistake:
            operator.refuse(self._inputs.mistake)
        elif self._inputs.heard_ns is not None:
            operator.hear(self._reader.wish(), self._inputs.heard_ns)

    def take_presses(self) -> list[Press]:
        """What was pressed since the last call."""
        return self._reader.buttons.take_presses()


def axes_of(msg: Joy | Twist | TwistStamped) -> list[float]:
    """The axes of a message: a Joy's, or linear x y z and angular x y z of a twist."""
    if isinstance(msg, Joy):
        return list(msg.axes)
    twist = msg.twist if isinstance(msg, TwistStamped) else msg
    return [value for part in (twist.linear, twist.angular) for value in (part.x, part.y, part.z)]


def make_device(node: Node, mapping: Mapping, contract: RobotContract,
                on_message: Callable[[], None]) -> Keyboard | TopicDevice:
    """The device of a mapping."""
    if isinstance(mapping, KeyboardMapping):
        return Keyboard(mapping, contract)
    return TopicDevice(node, mapping, contract, on_message)


def device_words(mapping: Mapping) -> str:
    """What a device is called in sentences."""
    if isinstance(mapping, KeyboardMapping):
        return "the keyboard"
    source = mapping.axes.topic if isinstance(mapping, PadMapping) else mapping.topic
    return f"the {mapping.device} on {source}"

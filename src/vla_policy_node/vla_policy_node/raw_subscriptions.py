"""Topics in; their messages as they came, byte for byte, and their publishers, out.

A topic is subscribed to once it is published, with a quality of service that fits what its publishers offer, so that no
publisher is refused and a reliable one loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from vla_policy.errors import ConfigError
from vla_policy.recorder.bag import OfferedQos
from vla_policy.recorder.definitions import definition_of
from vla_policy.recorder.streams import Stream

IMAGE_DEPTH = 60  # two seconds of a camera at 30 Hz
DEPTH = 1000

OnMessage = Callable[[Stream, bytes, tuple[bytes, int] | None], None]


class RawSubscriptions:
    """Follows `streams` in the ROS graph. on_message(stream, payload, (publisher, number) where they are known)."""

    def __init__(self, node: Node, streams: Iterable[Stream], on_message: OnMessage) -> None:
        self._node, self._streams, self._on_message = node, list(streams), on_message
        self._subscriptions: dict[str, tuple[Subscription, OfferedQos]] = {}
        self._complaints: set[str] = set()

    def refresh(self, may_lose: bool) -> None:
        """Look at the graph; call it regularly. may_lose: nothing is recorded, a topic may be left for a moment."""
        for stream in self._streams:
            found = self._node.get_publishers_info_by_topic(stream.topic.name)
            if found:  # the type of one that left may still be on its way
                stream.types = tuple(sorted({info.topic_type for info in found}))
            stream.offered = tuple(_offered(info.qos_profile) for info in found)
            if stream.offered and stream.type in stream.types:
                self._follow(stream, may_lose)
            known = self._subscriptions.get(stream.topic.name)
            stream.is_connected = known is not None and known[0].get_publisher_count() > 0

    def _follow(self, stream: Stream, may_lose: bool) -> None:
        fitting = OfferedQos(all(one.reliable for one in stream.offered),
                             all(one.transient_local for one in stream.offered))
        name = stream.topic.name
        if name in self._subscriptions:
            subscription, present = self._subscriptions[name]
            hears_all = present.reliable <= fitting.reliable and present.transient_local <= fitting.transient_local
            if present == fitting or (hears_all and not may_lose):
                return
            self._node.destroy_subscription(subscription)
        kind = self._message_class(stream.type)
        if kind is not None:
            subscription = self._node.create_subscription(kind, name, self._receiver(stream),
                                                          _profile(fitting, stream.topic.is_image), raw=True)
            self._subscriptions[name] = (subscription, fitting)

    def _receiver(self, stream: Stream) -> Callable[[bytes, Any], None]:
        def receive(payload: bytes, info: Any) -> None:
            number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
            # Before Kilted a message does not tell its publisher; then only those of a single one can be counted.
            name = publisher["data"] if publisher is not None else b"" if len(stream.offered) == 1 else None
            self._on_message(stream, payload, (name, number) if None not in (name, number) else None)

        return receive

    def _message_class(self, kind: str) -> type | None:
        """The class of a type, whose definition is there too; None, and one log line, where it is not installed."""
        package, _, name = kind.split("/")
        try:
            definition_of(kind)
            return getattr(import_module(f"{package}.msg"), name)
        except (ConfigError, ModuleNotFoundError, AttributeError) as problem:
            if kind not in self._complaints:
                self._node.get_logger().error(f"{kind} cannot be recorded: {problem}")
            self._complaints.add(kind)
            return None


def _offered(profile: QoSProfile) -> OfferedQos:
    return OfferedQos(profile.reliability == ReliabilityPolicy.RELIABLE,
                      profile.durability == DurabilityPolicy.TRANSIENT_LOCAL)


def _profile(fitting: OfferedQos, is_image: bool) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=IMAGE_DEPTH if is_image else DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if fitting.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if fitting.transient_local else DurabilityPolicy.VOLATILE)

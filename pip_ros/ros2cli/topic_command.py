"""In: `ros2 topic …`. Out: names of topics, messages as YAML, rates; published messages."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections import deque
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

from .connection import absolute, node, print_names, settled, wait_until
from .main import CommandError
from .messages import filled, interface, to_yaml

_TRUNCATE = 128
_ACKNOWLEDGE_S = 5  # a subscription may be seen here before it sees us


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 topic`."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="names of the topics")
    listing.add_argument("-t", "--show-types", action="store_true")
    listing.set_defaults(call=list_topics)
    echo = verbs.add_parser("echo", help="print messages as YAML")
    echo.add_argument("topic_name")
    echo.add_argument("message_type", nargs="?")
    echo.add_argument("--once", action="store_true", help="print one message and exit")
    echo.add_argument("--timeout", type=float, help="end after this many seconds")
    echo.add_argument("--field", help="print this field only, for example pose.position")
    echo.add_argument("--no-arr", action="store_true", help="print arrays as their length")
    echo.add_argument(
        "-f", "--full-length", action="store_true", help=f"print more than {_TRUNCATE} elements"
    )
    echo.set_defaults(call=echo_topic)
    rate = verbs.add_parser("hz", help="print the rate of messages")
    rate.add_argument("topic_name")
    rate.add_argument("-w", "--window", type=int, default=10000, help="messages to average over")
    rate.set_defaults(call=print_rate)
    publish = verbs.add_parser("pub", help="publish a message")
    publish.add_argument("topic_name")
    publish.add_argument("message_type")
    publish.add_argument("values", nargs="?", default="{}", help="fields in YAML")
    publish.add_argument("-1", "--once", action="store_true", help="publish one message and exit")
    publish.add_argument("-t", "--times", type=int, default=0, help="publish this often and exit")
    publish.add_argument("-r", "--rate", type=float, default=1.0, help="messages per second")
    publish.add_argument("-w", "--wait-matching-subscriptions", type=int, default=None)
    publish.set_defaults(call=publish_topic)


def list_topics(arguments: argparse.Namespace) -> int:
    """Print the names of the topics."""
    with node() as asker:
        print_names(settled(asker, lambda: sorted(asker.get_topic_names_and_types())), arguments.show_types)
    return 0


def _type_of(asker: Node, topic: str, given: str | None) -> Any:
    """Return the message class of a topic: the given one, or that of its publishers."""
    if given is None:
        if not wait_until(asker, lambda: asker.get_publishers_info_by_topic(topic)):
            print(f"WARNING: topic [{topic}] does not appear to be published yet")
            raise CommandError("Could not determine the type for the passed topic")
        given = asker.get_publishers_info_by_topic(topic)[0].topic_type
    return interface(given, "msg")


def _matching_qos(asker: Node, topic: str) -> QoSProfile:
    """Return the strictest QoS that every publisher of the topic offers."""
    offers = [info.qos_profile for info in asker.get_publishers_info_by_topic(topic)]
    qos = QoSProfile(
        depth=10, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE
    )
    if offers and all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers):
        qos.reliability = ReliabilityPolicy.RELIABLE
    if offers and all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers):
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return qos


def echo_topic(arguments: argparse.Namespace) -> int:
    """Print messages until told to stop."""
    done = False

    def show(message: Any) -> None:
        """Print the message, or its --field, as YAML; with --once only the first."""
        nonlocal done
        if done:
            return
        for field in (arguments.field or "").split("."):
            message = getattr(message, field) if field else message
        text = (
            to_yaml(
                message, truncate=None if arguments.full_length else _TRUNCATE, no_arrays=arguments.no_arr
            )
            if hasattr(message, "get_fields_and_field_types")
            else f"{message}\n"
        )
        print(f"{text}---", flush=True)
        done = bool(arguments.once)

    with node() as asker:
        topic = absolute(arguments.topic_name)
        message_type = _type_of(asker, topic, arguments.message_type)
        _check_field(message_type, arguments.field)
        if arguments.message_type is not None:
            wait_until(asker, lambda: asker.get_publishers_info_by_topic(topic), 0.5)
        asker.create_subscription(message_type, topic, show, _matching_qos(asker, topic))
        wait_until(asker, lambda: done, arguments.timeout)
    return 0


def _check_field(message_type: Any, field: str | None) -> None:
    message = message_type()
    for name in (field or "").split("."):
        if name and not hasattr(message, name):
            raise CommandError(
                f"Invalid field '{field}': {type(message).__name__} has "
                f"{', '.join(message.get_fields_and_field_types())}"
            )
        message = getattr(message, name) if name else message


def print_rate(arguments: argparse.Namespace) -> int:
    """Print the rate once a second, on the steady clock."""
    arrivals_s: deque[float] = deque(maxlen=arguments.window + 1)
    with node() as asker:
        topic = absolute(arguments.topic_name)
        asker.create_subscription(
            _type_of(asker, topic, None),
            topic,
            lambda message: arrivals_s.append(time.monotonic()),
            qos_profile_sensor_data,
        )
        printed = 0.0
        while True:
            wait_until(asker, lambda: False, 1.0)
            if len(arrivals_s) < 2 or arrivals_s[-1] == printed:
                continue
            printed = arrivals_s[-1]
            times = list(arrivals_s)
            gaps_s = [after - before for before, after in itertools.pairwise(times)]
            print(
                f"average rate: {1.0 / statistics.fmean(gaps_s):.3f}\n\tmin: {min(gaps_s):.3f}s "
                f"max: {max(gaps_s):.3f}s std dev: {statistics.pstdev(gaps_s):.5f}s window: {len(gaps_s)}",
                flush=True,
            )


def publish_topic(arguments: argparse.Namespace) -> int:
    """Publish a message, once or at a rate."""
    message = filled(interface(arguments.message_type, "msg")(), arguments.values)
    times = 1 if arguments.once else arguments.times
    wanted = arguments.wait_matching_subscriptions
    wanted = int(times > 0) if wanted is None else wanted
    with node() as asker:
        publisher = asker.create_publisher(type(message), absolute(arguments.topic_name), 10)
        if publisher.get_subscription_count() < wanted:
            print(f"Waiting for at least {wanted} matching subscription(s)...", flush=True)
            wait_until(asker, lambda: publisher.get_subscription_count() >= wanted, None)
        print("publisher: beginning loop")
        count = 0
        while rclpy.ok():
            count += 1
            print(f"publishing #{count}: {message!r}\n", flush=True)
            publisher.publish(message)
            if count == times:
                break
            wait_until(asker, lambda: False, 1.0 / arguments.rate)
        publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_S))
    return 0

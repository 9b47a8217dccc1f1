"""In: `ros2 bag …`. Out: what a bag holds; its messages, published again at the pace in which they were received."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosbags.interfaces import Connection, QosDurability
from rosbags.rosbag2 import Reader, ReaderError

from .connection import absolute, node, wait_until
from .main import CommandError
from .messages import interface

_NS_PER_S = 1_000_000_000
_DEPTH = 1000
_ACKNOWLEDGE_S = 5
_BYTES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 bag`."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    info = verbs.add_parser("info", help="print what a bag holds")
    info.add_argument("bag_path", type=Path)
    info.set_defaults(call=print_info)
    play = verbs.add_parser("play", help="publish the messages of a bag")
    play.add_argument("bag_path", type=Path)
    play.add_argument("-r", "--rate", type=_positive, default=1.0, help="how much faster than they were received")
    play.add_argument("-l", "--loop", action="store_true", help="begin again at the end")
    play.add_argument("-d", "--delay", type=_seconds, default=0.0, help="seconds to wait before the first message")
    play.add_argument("--start-offset", type=_seconds, default=0.0, help="seconds of the bag to leave out")
    play.add_argument("--topics", nargs="+", default=[], help="these topics only")
    play.add_argument("--exclude-topics", nargs="+", default=[], help="all but these topics")
    play.add_argument("-m", "--remap", nargs="+", default=[], metavar="OLD:=NEW", help="publish under another name")
    play.set_defaults(call=play_bag)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text}, expected a number above 0")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text}, expected seconds, 0 or more")
    return value


def _open(path: Path) -> Reader:
    try:
        reader = Reader(path)
        reader.open()
    except (ReaderError, OSError) as problem:
        raise CommandError(f"{path}: got no bag that can be read ({problem}), expected a folder with metadata.yaml "
                           "and its files, or one *.mcap or *.db3") from None
    return reader


def print_info(arguments: argparse.Namespace) -> int:
    """Print files, times and topics of a bag."""
    path: Path = arguments.bag_path
    reader = _open(path)
    try:
        files = sorted(path.glob("*.mcap")) + sorted(path.glob("*.db3")) if path.is_dir() else [path]
        print(f"Files:             {' '.join(file.name for file in files)}")
        print(f"Bag size:          {_size(sum(file.stat().st_size for file in files))}")
        print(f"Storage id:        {'sqlite3' if files and files[0].suffix == '.db3' else 'mcap'}")
        if reader.message_count:
            print(f"Duration:          {reader.duration / _NS_PER_S:.9f}s")
            print(f"Start:             {_date(reader.start_time)}")
            print(f"End:               {_date(reader.end_time - 1)}")
        print(f"Messages:          {reader.message_count}")
        rows = [f"Topic: {connection.topic} | Type: {connection.msgtype} | Count: {connection.msgcount} | "
                "Serialization Format: cdr" for connection in sorted(reader.connections, key=lambda each: each.topic)]
        print("Topic information: " + ("\n" + " " * 19).join(rows))
    finally:
        reader.close()
    return 0


def _size(count: int) -> str:
    unit, scale = next((pair for pair in _BYTES if count >= pair[1]), _BYTES[-1])
    return f"{count / scale:.1f} {unit}"


def _date(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, _NS_PER_S)
    return f"{datetime.fromtimestamp(seconds):%b %d %Y %H:%M:%S}.{rest:09d} ({seconds}.{rest:09d})"


def play_bag(arguments: argparse.Namespace) -> int:
    """Publish the messages of a bag until its end, or until told to stop."""
    names = _remapped(arguments.remap)
    reader = _open(arguments.bag_path)
    try:
        chosen = _chosen(reader.connections, arguments.topics, arguments.exclude_topics)
        with node() as player:
            publishers = {each.id: _publisher(player, each, names.get(each.topic, each.topic)) for each in chosen}
            wait_until(player, lambda: False, arguments.delay)
            while True:
                first_ns = reader.start_time + round(arguments.start_offset * _NS_PER_S)
                _play_once(reader, chosen, publishers, first_ns, arguments.rate)
                if not arguments.loop:
                    break
            for publisher in publishers.values():
                publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_S))
    finally:
        reader.close()
    return 0


def _play_once(reader: Reader, chosen: list[Connection], publishers: dict[int, Publisher], first_ns: int,
               rate: float) -> None:
    begun_s = time.monotonic()
    for connection, received_ns, raw in reader.messages(chosen, start=first_ns):
        due_s = begun_s + (received_ns - first_ns) / _NS_PER_S / rate
        time.sleep(max(0.0, due_s - time.monotonic()))
        publishers[connection.id].publish(bytes(raw))


def _remapped(words: Sequence[str]) -> dict[str, str]:
    pairs = [word.partition(":=") for word in words]
    for old, mark, new in pairs:
        if not (old and mark and new):
            raise CommandError(f"--remap: got '{old}{mark}{new}', expected OLD:=NEW")
    return {absolute(old): absolute(new) for old, _, new in pairs}


def _chosen(connections: Sequence[Connection], topics: Sequence[str], excluded: Sequence[str]) -> list[Connection]:
    known = [connection.topic for connection in connections]
    for topic in map(absolute, (*topics, *excluded)):
        if topic not in known:
            raise CommandError(f"got topic '{topic}', expected one of the bag's: {', '.join(sorted(known))}")
    wanted = {absolute(topic) for topic in topics} or set(known)
    unwanted = {absolute(topic) for topic in excluded}
    return [connection for connection in connections if connection.topic in wanted - unwanted]


def _publisher(player: Node, connection: Connection, topic: str) -> Publisher:
    qos = QoSProfile(depth=_DEPTH)
    offered: Any = connection.ext
    if any(profile.durability is QosDurability.TRANSIENT_LOCAL for profile in offered.offered_qos_profiles):
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return player.create_publisher(interface(connection.msgtype, "msg"), topic, qos)

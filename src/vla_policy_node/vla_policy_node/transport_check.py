"""A size, rate and duration in; how many camera frames reach another process, and how late, out.

    ros2 run vla_policy transport_check --seconds 10

A child process publishes an rgb8 image at a steady rate; this one receives. Latency is from the stamp, taken
before the image is put into its message, to the start of the receiving callback.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image

from vla_policy.messages import stamp_to_ns
from vla_policy_node.messages import array_to_image

TOPIC = "/transport_check/image_raw"
# Best effort as cameras send, but queues deep enough that a frame is lost by the transport or not at all.
QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
_MEET_S = 30.0  # for the two processes to find each other
_SETTLE_S = 1.0  # for the last frames to arrive


@dataclass(frozen=True, slots=True)
class Result:
    """Frames sent and received, and percentiles of their latency [ms] (None where none arrived)."""

    width: int
    height: int
    rate_hz: float
    profile: str
    sent: int
    received: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def main() -> None:
    """Entry point; exit code 1 when a frame was lost."""
    options = _parse()
    rclpy.init()
    try:
        if options.send:
            _send(options)
            return
        result = _receive(options)
    except (KeyboardInterrupt, ExternalShutdownException):
        sys.exit(130)
    finally:
        rclpy.try_shutdown()
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    _show(result)
    sys.exit(0 if result.received == result.sent else 1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count the camera frames that reach another process.")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to send")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second [Hz]")
    parser.add_argument("--width", type=int, default=640, help="[pixels]")
    parser.add_argument("--height", type=int, default=480, help="[pixels]")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    parser.add_argument("--send", action="store_true", help="be the sending process")
    options = parser.parse_args()
    if min(options.seconds, options.rate, options.width, options.height) <= 0:
        parser.error(f"got {options.seconds} s, {options.rate} Hz, {options.width}x{options.height}; "
                     "expected all above 0")
    return options


def _frames(options: argparse.Namespace) -> int:
    return max(1, round(options.seconds * options.rate))


def _send(options: argparse.Namespace) -> None:
    """Publish every frame at a steady rate; exits with an error when there is no receiver."""
    node = Node("transport_check_sender")
    publisher = node.create_publisher(Image, TOPIC, QOS)
    end_s = time.monotonic() + _MEET_S
    while not publisher.get_subscription_count():
        if time.monotonic() > end_s:
            sys.exit(f"transport_check: got no receiver within {_MEET_S:.0f} s; "
                     "check ROS_DOMAIN_ID and the firewall")
        time.sleep(0.05)
    pixels = np.random.default_rng(0).integers(0, 256, (options.height, options.width, 3), dtype=np.uint8)
    start_s = time.monotonic()
    for frame in range(_frames(options)):
        time.sleep(max(0.0, start_s + frame / options.rate - time.monotonic()))
        publisher.publish(array_to_image(pixels, time.time_ns(), "camera"))
    time.sleep(_SETTLE_S)  # what a process has in shared memory goes with it


def _receive(options: argparse.Namespace) -> Result:
    node = Node("transport_check_receiver")
    latencies_ms: list[float] = []
    node.create_subscription(
        Image, TOPIC, lambda msg: latencies_ms.append((time.time_ns() - stamp_to_ns(msg.header.stamp)) / 1e6),
        QOS)
    command = [sys.executable, "-m", "vla_policy_node.transport_check", "--send",
               "--seconds", str(options.seconds), "--rate", str(options.rate),
               "--width", str(options.width), "--height", str(options.height)]
    with subprocess.Popen(command) as sender:
        while sender.poll() is None:
            rclpy.spin_once(node, timeout_sec=0.1)
    if sender.returncode:
        sys.exit(sender.returncode)
    p50, p95, p99 = np.percentile(latencies_ms, [50, 95, 99]).tolist() if latencies_ms else [None] * 3
    profile = os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE", "")
    return Result(options.width, options.height, options.rate, profile, _frames(options),
                  len(latencies_ms), p50, p95, p99)


def _show(result: Result) -> None:
    table = Table()
    for column in ("sent", "received", "p50 [ms]", "p95 [ms]", "p99 [ms]"):
        table.add_column(column, justify="right")
    percentiles = (result.p50_ms, result.p95_ms, result.p99_ms)
    table.add_row(str(result.sent), str(result.received),
                  *("-" if value is None else f"{value:.1f}" for value in percentiles))
    console = Console()
    console.print(f"{result.width}x{result.height} rgb8 at {result.rate_hz:g} Hz between two processes, "
                  f"Fast DDS profile: {result.profile or 'none (defaults)'}", highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()

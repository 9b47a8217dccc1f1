"""Rates and a duration in; how many messages the recorder wrote of those that were sent, and its CPU share, out.

    ros2 run vla_policy bench_recorder --seconds 60 --json FILE

Two 640x480 cameras at 30 Hz, joints and pose at 100 Hz and commands at 20 Hz come from a child process; the recorder is
another, and the embedded simulator runs beside them at realtime pace. Give it a ROS domain of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
import yaml
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rich.console import Console
from rich.table import Table
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image, JointState
from vla_msgs.msg import RobotCommand
from vla_msgs.srv import StartRecording, StopRecording

from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import DataError, VlaError
from vla_policy.recording import COMMAND_TOPIC, read_episode
from vla_policy.resources import find_contract
from vla_policy.types import Command, Pose
from vla_policy_node.messages import array_to_image, array_to_joint_state, command_to_msg, pose_to_msg
from vla_policy_node.pace import RECORDED, RELIABLE

MEET_S = 60.0  # for all processes to come up
WARM_UP_S = 0.5  # of sending, over and over, before it counts
SETTLE_S = 1.0  # for the last messages to arrive
PREFIX = "/bench_recorder"


@dataclass(frozen=True, slots=True)
class TopicResult:
    """Messages of a topic: sent, found in the bag, and lost by the recorder's own count."""

    sent: int
    recorded: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Result:
    """cpu_share: of one core, user and system, while messages were sent. megabytes_s: payload written."""

    seconds: float
    width: int
    height: int
    simulator: str
    compression: str
    cores: int
    cpu_share: float
    megabytes_s: float
    topics: dict[str, TopicResult]


def main() -> None:
    """Entry point; exit code 1 when a message was lost."""
    options = _parse()
    rclpy.init()
    try:
        if options.send:
            _Sender(load_contract(options.send), options).run()
            return
        with tempfile.TemporaryDirectory(prefix="bench_recorder_", dir=options.output) as folder:
            result = _measure(options, Path(folder))
    except (KeyboardInterrupt, ExternalShutdownException):
        sys.exit(130)
    except VlaError as problem:
        sys.exit(f"bench_recorder: {problem}")
    finally:
        rclpy.try_shutdown()
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    _show(result)
    sys.exit(0 if all(topic.recorded == topic.sent for topic in result.topics.values()) else 1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count the messages that the recorder loses.")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to record")
    parser.add_argument("--camera-rate", type=float, default=30.0, help="frames a second of each camera [Hz]")
    parser.add_argument("--state-rate", type=float, default=100.0, help="joints and poses a second [Hz]")
    parser.add_argument("--width", type=int, default=640, help="[pixels]")
    parser.add_argument("--height", type=int, default=480, help="[pixels]")
    parser.add_argument("--sim", default="tabletop", help="simulator that runs beside it, or none")
    parser.add_argument("--compression", default="none", choices=["none", "zstd"], help="of the bag")
    parser.add_argument("--output", help="folder on the disk to measure (default: the system's temporary one)")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    parser.add_argument("--send", metavar="CONTRACT", help=argparse.SUPPRESS)  # be the sending process
    options = parser.parse_args()
    if min(options.seconds, options.camera_rate, options.state_rate, options.width, options.height) <= 0:
        parser.error("expected seconds, rates and sizes above 0")
    return options


# ---- the sending process --------------------------------------------------------------------------------------------


class _Sender:
    """Sends each topic at its rate: first so that everything is connected, then, told to go, what counts."""

    def __init__(self, contract: RobotContract, options: argparse.Namespace) -> None:
        self._contract, self._seconds = contract, options.seconds
        self._node = Node("bench_recorder_sender")
        noise = np.random.default_rng(0)
        self._streams: list[tuple[str, float, Callable[[int], Any], Any]] = []
        for camera in contract.cameras.values():
            picture = noise.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
            make = partial(_image, picture)
            self._add(Image, camera.topic, options.camera_rate, make, RELIABLE)
        joints, pose = np.zeros(len(contract.joints.names)), Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
        self._add(JointState, contract.joints.topic, options.state_rate,
                  lambda stamp_ns: array_to_joint_state(joints, contract.joints.names, stamp_ns), RELIABLE)
        self._add(PoseStamped, contract.pose.topic, options.state_rate,
                  lambda stamp_ns: pose_to_msg(pose, stamp_ns, contract.base_frame), RELIABLE)
        self._add(RobotCommand, COMMAND_TOPIC, contract.control_rate_hz, self._command, RECORDED)

    def _add(self, kind: type, topic: str, rate_hz: float, make: Callable[[int], Any], qos: Any) -> None:
        self._streams.append((topic, rate_hz, make, self._node.create_publisher(kind, topic, qos)))

    def _command(self, stamp_ns: int) -> RobotCommand:
        return command_to_msg(Command(stamp_ns, np.zeros(6), 1.0), self._contract, 1, stamp_ns, 0)

    def run(self) -> None:
        """Sends until it is told to go, is silent, sends what counts. Prints when that began [ns], and the counts."""
        told = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
        print("sending", flush=True)
        while not told.is_set():
            self._send(WARM_UP_S)
        time.sleep(SETTLE_S)
        print(time.time_ns(), flush=True)
        print(json.dumps(self._send(self._seconds)), flush=True)
        sys.stdin.readline()  # what a process has in shared memory goes with it

    def _send(self, seconds: float) -> dict[str, int]:
        """Each topic at its rate; returns how many messages of each were sent."""
        due = sorted((number / rate_hz, place) for place, (_, rate_hz, _, _) in enumerate(self._streams)
                     for number in range(max(1, round(seconds * rate_hz))))
        start_s, sent = time.monotonic(), Counter[str]()
        for at_s, place in due:
            time.sleep(max(0.0, start_s + at_s - time.monotonic()))
            topic, _, make, publisher = self._streams[place]
            publisher.publish(make(time.time_ns()))
            sent[topic] += 1
        return dict(sent)


def _image(picture: np.ndarray, stamp_ns: int) -> Image:
    return array_to_image(picture, stamp_ns, "camera")


# ---- the measuring process ------------------------------------------------------------------------------------------


def _measure(options: argparse.Namespace, folder: Path) -> Result:
    contract = _contract(options, folder)
    output = folder / "episodes"
    with ExitStack() as stack:
        if options.sim != "none":
            robot = find_contract(options.sim)
            _start(stack, ["sim_bridges.sim_node", "--ros-args", "-p", f"sim:={options.sim}", "-p",
                           f"contract:={robot}"])
        recorder = _start(stack, ["vla_policy_node.recorder_node", "--ros-args", "-p", f"contract:={contract}", "-p",
                                  f"output:={output}", "-p", f"compression:={options.compression}"])
        client = _Client()
        sender = _start(stack, ["vla_policy_node.bench_recorder", *sys.argv[1:], "--send", str(contract)],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        _line(sender)
        answer = client.call(StartRecording, "/vla/record/start", StartRecording.Request(instruction="bench"))
        _say(sender, "go")
        from_ns = int(_line(sender))
        begun, process = time.monotonic(), psutil.Process(recorder.pid)
        cpu_s = _cpu_s(process)
        sent: dict[str, int] = json.loads(_line(sender))
        seconds, cpu_s = time.monotonic() - begun, _cpu_s(process) - cpu_s
        time.sleep(SETTLE_S)
        client.call(StopRecording, "/vla/record/stop", StopRecording.Request())
        _say(sender, "end")
    folder = Path(answer.path)
    record, (recorded, size) = read_episode(folder), _recorded(folder, from_ns)
    topics = {topic: TopicResult(count, recorded[topic], record.topics[topic].dropped) for topic, count in sent.items()}
    return Result(options.seconds, options.width, options.height, options.sim, options.compression,
                  psutil.cpu_count(), cpu_s / seconds, size / seconds / 1e6, topics)


def _recorded(folder: Path, from_ns: int) -> tuple[Counter[str], int]:
    """Messages of each topic in a bag that were received since then, and their bytes."""
    counts, size = Counter[str](), 0
    with Reader(folder) as bag:
        for connection, received_ns, raw in bag.messages():
            if received_ns >= from_ns:
                counts[connection.topic] += 1
                size += len(raw)
    return counts, size


def _contract(options: argparse.Namespace, folder: Path) -> Path:
    """The tabletop's, with topics of its own and larger cameras."""
    data = yaml.safe_load(find_contract("tabletop").read_text(encoding="utf-8"))
    for name, camera in data["cameras"].items():
        camera |= {"topic": f"{PREFIX}/{name}", "width": options.width, "height": options.height, "max_age_s": 2.0}
    data["joints"] |= {"topic": f"{PREFIX}/joints", "max_age_s": 2.0}
    data["pose"] |= {"topic": f"{PREFIX}/pose", "max_age_s": 2.0}
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def _start(stack: ExitStack, words: list[str], **options: Any) -> subprocess.Popen:
    """A Python module as a process, which ends with the stack."""
    process = stack.enter_context(subprocess.Popen([sys.executable, "-m", *words], **options))
    stack.callback(process.terminate)
    return process


def _line(process: subprocess.Popen) -> str:
    """The next line that a process prints. Raises: DataError where it ended."""
    line = process.stdout.readline()
    if not line:
        raise DataError("the sending process ended, see its last lines above")
    return line


def _say(process: subprocess.Popen, word: str) -> None:
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


class _Client:
    """Calls the recorder's services."""

    def __init__(self) -> None:
        self._node = Node("bench_recorder")

    def call(self, kind: type, name: str, request: Any) -> Any:
        """The answer. Raises: DataError where there is none, or a refusal."""
        client = self._node.create_client(kind, name)
        if not client.wait_for_service(MEET_S):
            raise DataError(f"{name}: nobody offers it within {MEET_S:.0f} s; see the recorder's last lines above")
        future = client.call_async(request)
        rclpy.spin_until_future_complete(self._node, future, timeout_sec=MEET_S)
        if not future.done() or not future.result().success:
            words = future.result().message if future.done() else f"no answer within {MEET_S:.0f} s"
            raise DataError(f"{name}: {words}")
        return future.result()


def _show(result: Result) -> None:
    table = Table()
    for column in ("topic", "sent", "recorded", "dropped, as counted"):
        table.add_column(column, justify="left" if column == "topic" else "right")
    for name, topic in result.topics.items():
        table.add_row(name, *(str(value) for value in asdict(topic).values()))
    console = Console()
    console.print(f"{result.seconds:g} s beside {result.simulator}, compression {result.compression}: recorder "
                  f"{100 * result.cpu_share:.0f} % of one of {result.cores} cores, {result.megabytes_s:.0f} MB/s",
                  highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()

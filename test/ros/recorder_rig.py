"""A contract in; a stand-in for its robot and guard, a client of the recorder, and what the recorder said, out."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from policy_rig import DEADLINE_S, HOME
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool
from vla_msgs.action import RecordEpisode
from vla_msgs.msg import ActionChunk, EpisodeEvent, RecordingStatus, RobotCommand
from vla_msgs.srv import MarkRecording, StartRecording, StopRecording

from vla_policy.contract import RobotContract, load_contract
from vla_policy.types import Command, Pose
from vla_policy_node import messages
from vla_policy_node.pace import LATCHED, RECORDED, RELIABLE

DISCOVERED_S = 0.5  # for two processes that know each other in one direction to do so in the other
FEED_PERIOD_S = 0.05


def recorder_command(contract: Path, output: Path, *parameters: str) -> list[str]:
    """The command line of a recorder's process."""
    settings = (f"contract:={contract}", f"output:={output}", *parameters)
    options = [word for setting in settings for word in ("-p", setting)]
    return [sys.executable, "-m", "vla_policy_node.recorder_node", "--ros-args", *options]


class RecorderClient:
    """Calls the recorder's services, and keeps what it says, in a thread. `node` is for whoever needs more."""

    def __init__(self) -> None:
        self.statuses: list[RecordingStatus] = []
        self._known = False
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        node = self.node = rclpy.create_node("rig", context=self.context)
        self.start_client = node.create_client(StartRecording, "/vla/record/start")
        self.stop_client = node.create_client(StopRecording, "/vla/record/stop")
        self.mark_client = node.create_client(MarkRecording, "/vla/record/mark")
        self.action = ActionClient(node, RecordEpisode, "/vla/record")
        node.create_subscription(RecordingStatus, "/vla/recording", self.statuses.append, LATCHED)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the ROS graph."""
        self._executor.shutdown()
        self._thread.join(DEADLINE_S)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> None:
        """Wait; AssertionError with the last status when it never comes."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end_s, f"no {what} within {timeout_s} s; last status: {self.statuses[-1:]}"
            time.sleep(0.01)

    def call(self, client: Any, request: Any) -> Any:
        """The answer of a service."""
        self.until(client.service_is_ready, "service of the recorder")
        self._be_known()
        answer = client.call_async(request)
        self.until(answer.done, "answer")
        return answer.result()

    def _be_known(self) -> None:
        """Once: while the recorder has not discovered this client, which cannot be seen, its answers go nowhere."""
        self.until(lambda: self.statuses, "word of the recorder")
        if not self._known:
            time.sleep(DISCOVERED_S)
            self._known = True

    def start(self, instruction: str = "push the button", **wishes: str) -> StartRecording.Response:
        """Call /vla/record/start."""
        return self.call(self.start_client, StartRecording.Request(instruction=instruction, **wishes))

    def record(self, instruction: str = "push the button", **wishes: str) -> Path:
        """Begin an episode; returns its folder."""
        answer = self.start(instruction, **wishes)
        assert answer.success, answer.message
        return Path(answer.path)

    def stop(self, **wishes: Any) -> StopRecording.Response:
        """Call /vla/record/stop."""
        return self.call(self.stop_client, StopRecording.Request(**wishes))

    def mark(self, outcome: int) -> MarkRecording.Response:
        """Call /vla/record/mark."""
        return self.call(self.mark_client, MarkRecording.Request(outcome=outcome))

    def until_state(self, state: int) -> RecordingStatus:
        """Wait until the newest status has this state, and return it."""
        self.until(lambda: self.statuses and self.statuses[-1].state == state, f"state {state}")
        return self.statuses[-1]

    def until_written(self, messages_: int) -> None:
        """Wait until the episode holds so many messages."""
        self.until(lambda: self.statuses and self.statuses[-1].messages >= messages_, f"{messages_} messages")


class RecorderRig(RecorderClient):
    """Publishes observations and commands twenty times a second while `feeding`, in a thread.

    silent: topics that say nothing. published: messages of each topic. sent: of each, while `as_bytes`, byte for byte.
    """

    def __init__(self, contract_path: Path, silent: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.contract: RobotContract = load_contract(contract_path)
        self.feeding, self.silent = True, set(silent)
        self.published: Counter[str] = Counter()
        self.as_bytes, self.sent = False, defaultdict[str, list[bytes]](list)
        self.stamp_ns: Callable[[], int] = lambda: self.node.get_clock().now().nanoseconds
        self._publishers: dict[str, Any] = {}
        self._connect()
        self.node.create_timer(FEED_PERIOD_S, self._feed)

    def _connect(self) -> None:
        contract = self.contract
        for camera in contract.cameras.values():
            self.advertise(CompressedImage if camera.compressed else Image, camera.topic, RELIABLE)
        self.advertise(JointState, contract.joints.topic, RELIABLE)
        if contract.pose is not None:
            self.advertise(PoseStamped, contract.pose.topic, RELIABLE)
        self.advertise(RobotCommand, "/vla/command", RECORDED)
        self.advertise(EpisodeEvent, "/vla/episode", LATCHED)
        self.advertise(Bool, "/vla/intervention", LATCHED)
        self.advertise(ActionChunk, "/vla/action_chunk", RELIABLE)
        self.advertise(Clock, "/clock", RELIABLE)

    def advertise(self, kind: type, topic: str, qos: Any) -> None:
        """Offer a topic; one that is silent is not offered."""
        if topic not in self.silent:
            self._publishers[topic] = self.node.create_publisher(kind, topic, qos)

    # ---- the robot ----------------------------------------------------------------------------------------------

    def publish(self, topic: str, msg: Any) -> None:
        """Publish a message; with `as_bytes` as those that `sent` keeps, for padding is not the same twice."""
        if topic not in self.silent:
            self.published[topic] += 1
            if self.as_bytes:
                msg = serialize_message(msg)
                self.sent[topic].append(msg)
            self._publishers[topic].publish(msg)

    def _feed(self) -> None:
        if self.feeding:
            self.feed(self.stamp_ns())

    def feed(self, stamp_ns: int) -> None:
        """One instant of everything."""
        contract = self.contract
        number = self.published["/vla/command"]
        joints = np.arange(len(contract.joints.names), dtype=np.float64) + number
        self.publish(contract.joints.topic, messages.array_to_joint_state(joints, contract.joints.names, stamp_ns))
        if contract.pose is not None:
            self.publish(contract.pose.topic, messages.pose_to_msg(Pose(HOME.position, HOME.quaternion), stamp_ns,
                                                                   contract.base_frame))
        for camera in contract.cameras.values():
            if camera.compressed:
                jpeg = CompressedImage(header=messages.make_header(stamp_ns, "camera"), format="jpeg")
                jpeg.data = bytes([0xFF, 0xD8, number % 256] * 101)
                self.publish(camera.topic, jpeg)
            else:
                image = np.full((camera.height, camera.width, 3), number % 256, np.uint8)
                self.publish(camera.topic, messages.array_to_image(image, stamp_ns, "camera"))
        command = Command(stamp_ns, np.full(6, 0.01), 1.0)
        self.publish("/vla/command", messages.command_to_msg(command, contract, 7, stamp_ns, 0))

    def scene(self, event: int, seed: int = 3) -> None:
        """A simulator's news of its scene."""
        self.publish("/vla/episode", EpisodeEvent(
            header=messages.make_header(self.stamp_ns(), ""), event=event, task="press_button",
            instruction="push the button", seed=seed, message=""))

"""A robot's topics and a person's wishes in, one bag an episode out, every message as it came.

The thinking stands in `vla_policy.recorder`; this node gives it messages and clocks, and answers services. Its
callbacks only queue: a thread of the recorder writes.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from rclpy.task import Future
from std_msgs.msg import Bool
from vla_msgs.action import RecordEpisode
from vla_msgs.msg import ActionChunk, EpisodeEvent, RecordingStatus
from vla_msgs.srv import MarkRecording, StartRecording, StopRecording

from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, VlaError, nearest
from vla_policy.messages import stamp_to_ns
from vla_policy.recorder.bag import OpenBag, RosbagsWriter
from vla_policy.recorder.dataset_folder import interrupted_episodes
from vla_policy.recorder.definitions import definition_of
from vla_policy.recorder.recorder import (
    Ended,
    Recorder,
    RecorderSettings,
    RecorderState,
    Scene,
    StartRequest,
    describe,
)
from vla_policy.recorder.streams import Stream, StreamTable
from vla_policy.recorder.topics import CHUNK_TOPIC, SCENE_TOPIC, recorded_topics
from vla_policy.recording import INTERVENTION_TOPIC, Driver, Outcome, recover_command
from vla_policy.types import NS_PER_S
from vla_policy_node.messages import make_header, ns_to_duration
from vla_policy_node.pace import LATCHED, Pace
from vla_policy_node.raw_subscriptions import RawSubscriptions
from vla_policy_node.serving import run_node

TICK_S = 0.05
GRAPH_S = 0.5  # how often the ROS graph is looked at for new publishers
STATUS_S = 0.5
CLOSE_S = 60.0  # how long a recorder that is shut down waits for its bag
LAST_WORDS_S = 0.3

_OUTCOMES: dict[int, Outcome] = {MarkRecording.Request.UNKNOWN: "unknown", MarkRecording.Request.SUCCESS: "success",
                                 MarkRecording.Request.FAILURE: "failure"}
_NUMBERS = {outcome: number for number, outcome in _OUTCOMES.items()}
_EVENTS: dict[int, Outcome] = {EpisodeEvent.SUCCESS: "success", EpisodeEvent.FAILURE: "failure"}
_COMPRESSIONS = ("none", "zstd")
_WRITERS = ("auto", "rosbags", "rosbag2")


class RecorderNode(Node):
    """Wires topics, services and the action to `Recorder`. Raises: VlaError for a parameter that cannot be used."""

    def __init__(self) -> None:
        super().__init__("recorder_node")
        self._contract = load_contract(self._path("contract", "a robot contract, e.g. config/robots/tabletop.yaml"))
        settings = self._settings()
        self._preflight_s = self._number("preflight_s", 10.0)
        extra = tuple(self.declare_parameter("topics", Parameter.Type.STRING_ARRAY).value or ())
        simulated = bool(self.get_parameter("use_sim_time").value)
        self._streams = StreamTable(recorded_topics(self._contract, simulated, extra))
        self._recorder = Recorder(self._contract, settings, self._streams, self._open_bag(), self._say, simulated)
        self._subscriptions_ = RawSubscriptions(self, self._streams, self._on_message)
        self._waiting: list[Future] = []
        self._is_starting = self._leaving = False
        self._statuses = self.create_publisher(RecordingStatus, "/vla/recording", LATCHED)
        self._serve()
        for episode in interrupted_episodes(settings.output):
            self.get_logger().warning(f"{episode} was interrupted; recover it: {recover_command(episode)}")
        self.get_logger().info(f"ready to record {self._contract.name} into {settings.output}")
        self._publish_status()

    def shut_down(self) -> None:
        """End an episode as it is marked, wait for its bag, and give whoever waits an answer."""
        self._leaving = True
        if self._recorder.state is RecorderState.RECORDING:
            self._recorder.stop(self._now_ns(), note="the recorder was shut down, which ends the episode")
        end_s = time.monotonic() + CLOSE_S
        while self._recorder.state is RecorderState.FINISHING and time.monotonic() < end_s:
            self.executor.spin_once(timeout_sec=TICK_S)
        end_s = time.monotonic() + LAST_WORDS_S
        while time.monotonic() < end_s:
            self.executor.spin_once(timeout_sec=TICK_S)

    # ---- parameters and wiring ----------------------------------------------------------------------------------

    def _settings(self) -> RecorderSettings:
        pace = self._choice("pace", Pace.REALTIME.value, tuple(Pace))
        driver = self._choice("driver", "auto", ("auto", *get_args(Driver)))
        return RecorderSettings(
            output=Path(os.path.expanduser(self._path("output", "the folder that the episodes shall lie in"))),
            pace=pace, operator=str(self.declare_parameter("operator", "").value),
            driver=None if driver == "auto" else driver,
            min_free_bytes=round(self._number("min_free_mb", 1024.0) * 1e6),
            queue_bytes=round(self._number("queue_mb", 256.0) * 1e6))

    def _open_bag(self) -> OpenBag:
        compressed = self._choice("compression", "none", _COMPRESSIONS) == "zstd"
        writer = self._choice("writer", "auto", _WRITERS)
        if writer == "rosbags" or (writer == "auto" and find_spec("rosbag2_py") is None):
            return lambda folder: RosbagsWriter(folder, compressed)
        if find_spec("rosbag2_py") is None:
            raise ConfigError("parameter 'writer': got 'rosbag2', but rosbag2_py is not installed; source a ROS "
                              "distribution, or say writer:=rosbags")
        from vla_policy_node.rosbag2_writer import Rosbag2Writer  # only a ROS distribution has what it imports

        return lambda folder: Rosbag2Writer(folder, compressed)

    def _serve(self) -> None:
        patient = ReentrantCallbackGroup()  # an answer that takes its time keeps nobody waiting
        self.create_service(StartRecording, "/vla/record/start", self._on_start, callback_group=patient)
        self.create_service(StopRecording, "/vla/record/stop", self._on_stop, callback_group=patient)
        self.create_service(MarkRecording, "/vla/record/mark", self._on_mark)
        self._server = ActionServer(self, RecordEpisode, "/vla/record", self._execute,
                                    cancel_callback=lambda handle: CancelResponse.ACCEPT)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self.create_timer(TICK_S, self._tick, clock=steady)
        self.create_timer(GRAPH_S, self._refresh, clock=steady)
        self.create_timer(STATUS_S, self._repeat_status, clock=steady)
        self._refresh()

    def _path(self, name: str, expected: str) -> str:
        value = str(self.declare_parameter(name, "").value)
        if not value:
            raise ConfigError(f"parameter '{name}': got nothing, expected {expected}: --ros-args -p {name}:=PATH")
        return value

    def _choice(self, name: str, default: str, allowed: tuple[str, ...]) -> Any:
        value = str(self.declare_parameter(name, default).value)
        if value not in allowed:
            raise ConfigError(f"parameter '{name}': got '{value}'; {nearest(value, allowed)}")
        return value

    def _number(self, name: str, default: float) -> float:
        value = self.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True)).value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"parameter '{name}': got {value!r}, expected a number, 0 or more")
        return float(value)

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _say(self, severity: str, words: str) -> None:
        log = self.get_logger()
        if severity == "error":
            log.error(words)
        else:
            log.info(words)  # rclpy wants one severity a line of code

    # ---- what is heard ------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        self._subscriptions_.refresh(may_lose=self._recorder.state is not RecorderState.RECORDING)

    def _on_message(self, stream: Stream, payload: bytes, source: tuple[bytes, int] | None) -> None:
        name = stream.topic.name
        if name == SCENE_TOPIC:
            self._on_scene(deserialize_message(payload, EpisodeEvent))
        self._recorder.take(name, payload, self._now_ns(), source, _stamp_ns(stream, payload))
        if name == INTERVENTION_TOPIC:
            self._recorder.hear_driver(deserialize_message(payload, Bool).data)
        elif name == CHUNK_TOPIC and not deserialize_message(payload, ActionChunk).end_of_run:
            self._recorder.hear_policy()

    def _on_scene(self, msg: EpisodeEvent) -> None:
        stamp_ns = stamp_to_ns(msg.header.stamp)
        if msg.event == EpisodeEvent.START:
            self._recorder.hear_scene(Scene(msg.instruction, msg.task, msg.seed if msg.seed >= 0 else None), stamp_ns)
        elif msg.event in _EVENTS:
            self._recorder.hear_outcome(_EVENTS[msg.event], stamp_ns)

    # ---- services -----------------------------------------------------------------------------------------------

    async def _on_start(self, request: StartRecording.Request,
                        response: StartRecording.Response) -> StartRecording.Response:
        wish = StartRequest(request.instruction, request.operator_name, request.task, request.name)
        response.success, response.message, response.path = await self._start(wish)
        return response

    async def _on_stop(self, request: StopRecording.Request,
                       response: StopRecording.Response) -> StopRecording.Response:
        if request.outcome not in _OUTCOMES:
            response.message = f"outcome: got {request.outcome}, expected one of {sorted(_OUTCOMES)}"
        elif self._recorder.state is not RecorderState.RECORDING:
            response.message = "nothing is being recorded" + (
                f"; the last episode: {self._recorder.ended.message}" if self._recorder.ended is not None else "")
        else:
            self._recorder.stop(self._now_ns(), _OUTCOMES[request.outcome], request.discard, request.note)
            self._publish_status()
            ended = await self._end_of(self._recorder.begun)
            response.success = ended.is_kept or request.discard
            response.message, response.path = ended.message, str(ended.path)
        return response

    def _on_mark(self, request: MarkRecording.Request, response: MarkRecording.Response) -> MarkRecording.Response:
        if request.outcome not in _OUTCOMES:
            response.message = f"outcome: got {request.outcome}, expected one of {sorted(_OUTCOMES)}"
        elif self._recorder.state is not RecorderState.RECORDING:
            response.message = "nothing is being recorded"
        else:
            self._recorder.mark(_OUTCOMES[request.outcome])
            response.success, response.message = True, f"marked as {_OUTCOMES[request.outcome]}"
            self._publish_status()
        return response

    async def _start(self, wish: StartRequest) -> tuple[bool, str, str]:
        """Begin an episode, or say why not; what a moment may cure is waited for."""
        if self._is_starting:
            return False, "not recording: another start is being looked into; wait for its answer", ""
        self._is_starting = True
        try:
            end_s = time.monotonic() + self._preflight_s
            faults = self._recorder.faults(wish, self._now_ns())
            while faults and all(fault.may_pass for fault in faults) and time.monotonic() < end_s and not self._leaving:
                await self._next_tick()
                faults = self._recorder.faults(wish, self._now_ns())
            if faults:
                return False, self._refused(describe(faults)), ""
            path = self._recorder.begin(wish, self._now_ns())
        except VlaError as problem:
            return False, self._refused(f"not recording: {problem}"), ""
        finally:
            self._is_starting = False
        self._publish_status()
        return True, f"recording '{self._recorder.running.instruction}'", str(path)

    def _refused(self, words: str) -> str:
        self.get_logger().warning(words)
        return words

    # ---- the action ---------------------------------------------------------------------------------------------

    async def _execute(self, handle: ServerGoalHandle) -> RecordEpisode.Result:
        goal = handle.request
        wish = StartRequest(goal.instruction, goal.operator_name, goal.task, goal.name, stamp_to_ns(goal.time_limit))
        begun, message, _ = await self._start(wish)
        if not begun:
            handle.abort()
            return RecordEpisode.Result(message=message)
        number = self._recorder.begun
        feedback = self.create_timer(STATUS_S, lambda: self._feed_back(handle), clock=Clock(
            clock_type=ClockType.STEADY_TIME))
        await self._until(lambda: handle.is_cancel_requested or self._has_ended(number))
        if handle.is_cancel_requested and self._recorder.state is RecorderState.RECORDING:
            self._recorder.stop(self._now_ns())
        ended = await self._end_of(number)
        self.destroy_timer(feedback)
        if handle.is_cancel_requested:
            handle.canceled()
        elif ended.is_kept:
            handle.succeed()
        else:
            handle.abort()
        return RecordEpisode.Result(success=ended.is_kept, message=ended.message, path=str(ended.path),
                                    outcome=_NUMBERS[ended.outcome])

    def _feed_back(self, handle: ServerGoalHandle) -> None:
        if handle.is_active:
            handle.publish_feedback(RecordEpisode.Feedback(status=self._status()))

    def _has_ended(self, number: int) -> bool:
        return self._recorder.ended is not None and self._recorder.ended.number >= number

    async def _end_of(self, number: int) -> Ended:
        await self._until(lambda: self._has_ended(number))
        return self._recorder.ended

    # ---- time ---------------------------------------------------------------------------------------------------

    async def _until(self, condition: Callable[[], Any]) -> None:
        """Come back when the condition holds; looked at with every tick."""
        while not condition():
            await self._next_tick()

    def _next_tick(self) -> Future:
        future = Future()
        self._waiting.append(future)
        return future

    def _tick(self) -> None:
        before = self._recorder.state
        self._recorder.tick(self._now_ns())
        if self._recorder.state is not before:
            self._publish_status()
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)

    def _repeat_status(self) -> None:
        if self._recorder.state in (RecorderState.RECORDING, RecorderState.FINISHING):
            self._publish_status()

    def _publish_status(self) -> None:
        self._statuses.publish(self._status())

    def _status(self) -> RecordingStatus:
        recorder, running = self._recorder, self._recorder.running
        messages, size, dropped = recorder.written()
        ended = recorder.ended
        if running is not None:
            words = f"silent: {', '.join(recorder.silent)}" if recorder.silent else ""
            outcome = running.outcome
        else:
            words, outcome = (ended.message, ended.outcome) if ended is not None else ("", "unknown")
        return RecordingStatus(
            header=make_header(self._now_ns(), ""), state=int(recorder.state), path=str(recorder.path or ""),
            instruction=running.instruction if running is not None else "", outcome=_NUMBERS[outcome],
            elapsed=ns_to_duration(recorder.elapsed_ns()), messages=messages, dropped=dropped, bytes=size,
            episodes=recorder.episodes, message=words)


def _stamp_ns(stream: Stream, payload: bytes) -> int | None:
    """Stamp of a serialised message that begins with a header."""
    if not definition_of(stream.type).has_header or len(payload) < 12:
        return None
    seconds, nanoseconds = struct.unpack_from("<iI" if payload[1] & 1 else ">iI", payload, 4)
    return seconds * NS_PER_S + nanoseconds


def main() -> None:
    """Run the recorder until a signal; exit code 2 and one line when it cannot start."""
    run_node("recorder_node", RecorderNode)


if __name__ == "__main__":
    main()

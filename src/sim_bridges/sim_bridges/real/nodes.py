"""The running nodes in, a robot and a recorder as a session wants them out: /vla/run, the guard, /vla/record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.task import Future
from vla_msgs.action import RunPolicy
from vla_msgs.msg import EpisodeEvent, RecordingStatus, SafetyStatus
from vla_msgs.srv import MarkRecording, StartRecording, StopRecording

from sim_bridges.real.session import Ending, Progress
from sim_bridges.results import EpisodeResult
from sim_bridges.run_client import CALL_TIMEOUT_S, RunClient, wait_for
from vla_policy.contract import RobotContract
from vla_policy.errors import VlaError
from vla_policy.messages import stamp_to_ns
from vla_policy.run import EndReason, RunEnd
from vla_policy.types import NS_PER_S, seconds_to_ns
from vla_policy_node.messages import make_header, ns_to_duration
from vla_policy_node.pace import LATCHED, Pace

LOOK_S = 0.1  # how often a run is looked at
HEED_S = 2.0  # a run that does not end by the operator's event in this time is canceled
END_S = 20.0  # how long a run may take to end once it was asked to
EVENTS = {Ending.SUCCESS: EpisodeEvent.SUCCESS, Ending.FAILURE: EpisodeEvent.FAILURE}
SAFETY = {SafetyStatus.IDLE: "guard idle", SafetyStatus.ACTIVE: "guard passes",
          SafetyStatus.LIMITING: "guard limits", SafetyStatus.STOPPED: "guard STOPPED"}


class NodesRobot(RunClient):
    """A robot whose policy and guard run as nodes."""

    def __init__(self, contract: RobotContract, node: Node) -> None:
        self._safety: SafetyStatus | None = None
        self._goal: Any = None
        self._ended: Future | None = None
        self._result: RunPolicy.Result | None = None
        node.create_subscription(SafetyStatus, "/vla/safety", self._on_safety, LATCHED)
        self._events = node.create_publisher(EpisodeEvent, "/vla/episode", LATCHED)
        self._parameters = node.create_client(GetParameters, "/policy_node/get_parameters")
        super().__init__(contract, Pace.REALTIME, node)

    def policy(self) -> str:
        """The bundle or address that the policy node was given; empty where it does not say."""
        if not self._parameters.wait_for_service(timeout_sec=2.0):
            return ""
        answer = self._call(self._parameters, GetParameters.Request(names=["bundle"]))
        return answer.values[0].string_value if answer.values else ""

    def fault(self) -> str:
        """Why the guard holds the robot; empty where it does not."""
        safety = self._safety
        return safety.message if safety is not None and safety.state == SafetyStatus.STOPPED else ""

    def reset(self) -> None:
        """End a latched stop. Raises: VlaError saying why that cannot be."""
        answer = self._release_guard()
        if not answer.success:
            raise VlaError(f"the guard was not reset: {answer.message}")
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while self.fault():
            if time.monotonic() > deadline:
                raise VlaError(f"waited {CALL_TIMEOUT_S:g} s for the guard's news after its reset, on /vla/safety")
            time.sleep(0.02)

    def begin(self, instruction: str, time_limit_s: float) -> None:
        """Send an instruction. Raises: VlaError where nobody takes it."""
        self._instruction, self._feedback = instruction, RunPolicy.Feedback(status="waiting for the first observation")
        self._begun_s, self._begun_ns = time.perf_counter(), self._node.get_clock().now().nanoseconds
        self._asked_s: float | None = None
        self._canceled = False
        self._latest_s = time.monotonic() + 60.0 + 20 * time_limit_s  # simulated seconds may take longer than real ones
        goal = RunPolicy.Goal(instruction=instruction, time_limit=ns_to_duration(seconds_to_ns(time_limit_s)))
        self._goal = self._begin(goal, self._on_feedback)
        self._ended = self._goal.get_result_async()

    def states(self) -> Iterator[Progress]:
        """How the run goes, until it has ended. Raises: VlaError where nobody answers."""
        while not self._ended.done():
            self._check_alive("the run to end")
            self._insist()
            elapsed_s = stamp_to_ns(self._feedback.elapsed) / NS_PER_S
            yield Progress(elapsed_s, self._feedback.status, self._safety_words())
            time.sleep(LOOK_S)
        self._result, self._goal = self._ended.result().result, None

    def end(self, ending: Ending) -> None:
        """Ask for the end of the run: by an event of the episode, or by taking the instruction back."""
        self._asked_s = time.monotonic()
        if ending is Ending.STOP:
            self._cancel()
            return
        self._events.publish(EpisodeEvent(header=make_header(self._policy_now_ns(), ""), event=EVENTS[ending], seed=-1,
                                          instruction=self._instruction, message=f"the operator says {ending}"))

    def episode(self, task: str, seed: int) -> EpisodeResult:
        """What became of the run that has ended."""
        end = RunEnd(EndReason(self._result.reason), self._result.message)
        return self._episode(self._result, end, task, seed, self._instruction, self._begun_s, self._begun_ns)

    def abandon(self) -> None:
        """End the run that goes on, if there is one. Raises: VlaError where nobody says that it has ended."""
        if self._goal is not None and not self._ended.done():
            self._cancel()
            wait_for(self._ended, END_S, "the run to end; if the robot moves, use its emergency stop")

    def _policy_now_ns(self) -> int:
        """By the policy node's clock, which decides whether an event belongs to the run: later than its last status."""
        newest = self._statuses[-1:]
        return stamp_to_ns(newest[0].header.stamp) + 1 if newest else self._node.get_clock().now().nanoseconds

    def _insist(self) -> None:
        """Cancel a run that does not end by an event. Raises: VlaError for one that does not end at all."""
        now_s = time.monotonic()
        if self._asked_s is not None and now_s > self._asked_s + HEED_S and not self._canceled:
            self._cancel()
        if now_s > (self._latest_s if self._asked_s is None else self._asked_s + END_S):
            raise VlaError("the run did not end, though its time limit or the operator asked for it")

    def _cancel(self) -> None:
        self._canceled = True
        self._goal.cancel_goal_async()

    def _safety_words(self) -> str:
        return "no guard heard" if self._safety is None else SAFETY[self._safety.state]

    def _on_safety(self, msg: SafetyStatus) -> None:
        self._safety = msg

    def _on_feedback(self, feedback: RunPolicy.Feedback) -> None:
        self._feedback = feedback


class NodesRecorder:
    """The recorder node, served by the thread of `NodesRobot`. operator: name kept in each recording."""

    def __init__(self, node: Node, operator: str) -> None:
        self._operator = operator
        self._start = node.create_client(StartRecording, "/vla/record/start")
        self._stop = node.create_client(StopRecording, "/vla/record/stop")
        self._recording = False
        self._status: RecordingStatus | None = None
        node.create_subscription(RecordingStatus, "/vla/recording", self._on_status, LATCHED)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Raises: VlaError where no recorder runs."""
        for client in (self._start, self._stop):
            if not client.wait_for_service(timeout_sec=timeout_s):
                raise VlaError(f"waited {timeout_s:g} s for {client.srv_name}: no recorder runs on this ROS_DOMAIN_ID; "
                               "start one (docs/real-robot-evaluation.md), or say --no-record")

    def start(self, instruction: str, task: str) -> None:
        """Begin an episode. Raises: VlaError saying why nothing is recorded."""
        request = StartRecording.Request(instruction=instruction, operator_name=self._operator, task=task)
        self._recording, self._status = True, None  # before the answer: whoever interrupts it shall find it to discard
        answer = self._ask(self._start, request)
        if not answer.success:
            self._recording = False
            raise VlaError(f"the recorder refused to start: {answer.message}")

    def fault(self) -> str:
        """Why the episode that was begun is not recorded any more; empty where all is well."""
        status = self._status
        return status.message if status is not None and status.state == RecordingStatus.FAILED else ""

    def stop(self, success: bool, note: str) -> str:
        """End and keep it; returns its folder. Raises: VlaError where it could not be kept."""
        outcome = MarkRecording.Request.SUCCESS if success else MarkRecording.Request.FAILURE
        return self._end(StopRecording.Request(outcome=outcome, note=note))

    def discard(self) -> None:
        """End and delete it, if there is one. Raises: VlaError where that was not done."""
        if self._recording:
            self._end(StopRecording.Request(discard=True))

    def _end(self, request: StopRecording.Request) -> str:
        self._recording = False
        answer = self._ask(self._stop, request)
        if not answer.success:
            raise VlaError(f"the recorder could not end the episode: {answer.message}")
        return answer.path

    def _on_status(self, msg: RecordingStatus) -> None:
        self._status = msg

    def _ask(self, client: Any, request: Any) -> Any:
        if not client.service_is_ready():
            raise VlaError(f"{client.srv_name}: the recorder is gone; start it again")
        return wait_for(client.call_async(request), CALL_TIMEOUT_S, f"{client.srv_name} to answer")

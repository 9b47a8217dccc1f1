"""An instruction in, one EpisodeResult out: a client of /vla/run that hears what policy and guard say meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger
from vla_msgs.action import RunPolicy
from vla_msgs.msg import PolicyStatus, RobotCommand

from sim_bridges.results import EpisodeResult
from sim_bridges.rollout import command_rows
from vla_policy.contract import RobotContract
from vla_policy.errors import VlaError
from vla_policy.messages import command_from_msg, stamp_to_ns
from vla_policy.run import EndReason, RunEnd
from vla_policy.types import NS_PER_S
from vla_policy_node.pace import RECORDED, Pace

READY_TIMEOUT_S = 120.0  # loading a large model takes its time
CALL_TIMEOUT_S = 60.0
SILENT_S = 20.0  # a policy node that says nothing for so long is gone
SETTLE_S = 10.0  # how long commands that were sent may take to arrive here
STAGES = ("image_age", "decode", "preprocess", "model", "postprocess", "publish", "total")
ON_TIME_FACTOR = 1.5  # a command is late when the gap before it exceeds this many control periods

Ready = Mapping[str, Callable[[], bool]]  # what is waited for -> whether it is there


class RunClient:
    """Sends instructions to /vla/run and keeps the commands and statuses of the run; its own thread serves `node`."""

    def __init__(self, contract: RobotContract, pace: Pace, node: Node) -> None:
        self._contract = contract
        self._pace = pace
        self._node = node
        self._reset_guard = node.create_client(Trigger, "/vla/safety/reset")
        self._run = ActionClient(node, RunPolicy, "/vla/run")
        self._raw: list[RobotCommand] = []
        self._sent: list[RobotCommand] = []
        self._statuses: list[PolicyStatus] = []
        self._policy_heard_s = time.monotonic()
        node.create_subscription(RobotCommand, "/vla/command_raw", self._raw.append, RECORDED)
        node.create_subscription(RobotCommand, "/vla/command", self._sent.append, RECORDED)
        node.create_subscription(PolicyStatus, "/vla/status", self._on_status, RECORDED)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name="ros", daemon=True)
        self._thread.start()

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait for the guard, an active policy and whoever else is needed. Raises: VlaError naming who is missing."""
        deadline = time.monotonic() + timeout_s
        servers = self._servers()
        while missing := [name for name, ready in servers.items() if not ready()]:
            if time.monotonic() > deadline:
                raise VlaError(f"waited {timeout_s:g} s for {', '.join(missing)}; are {self._nodes()} running on this "
                               "ROS_DOMAIN_ID?")
            time.sleep(0.05)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._thread.join(5.0)
        self._node.destroy_node()

    # ---- for those that play episodes ---------------------------------------------------------------------------

    def _servers(self) -> Ready:
        return {"/vla/safety/reset": self._reset_guard.service_is_ready, "/vla/run": self._run.server_is_ready,
                "/vla/status": self._policy_is_idle}

    def _nodes(self) -> str:
        return "guard_node and an active policy_node"

    def _begin(self, goal: RunPolicy.Goal, feedback: Callable[[RunPolicy.Feedback], None] | None = None
               ) -> ClientGoalHandle:
        """Start a run and forget the one before. Raises: VlaError where nobody takes it."""
        self._raw.clear(), self._sent.clear(), self._statuses.clear()
        hear = None if feedback is None else lambda msg: feedback(msg.feedback)
        answer = self._run.send_goal_async(goal, hear)
        try:
            handle = self._wait(answer, CALL_TIMEOUT_S, "/vla/run to answer")
        except BaseException:  # nobody will watch a run that is taken up later
            answer.add_done_callback(lambda late: late.result().accepted and late.result().cancel_goal_async())
            raise
        if not handle.accepted:
            raise VlaError("/vla/run rejected the goal: another run is active or the policy node is not active")
        return handle

    def _episode(self, result: RunPolicy.Result, end: RunEnd, task: str, seed: int, instruction: str, begun_s: float,
                 first_ns: int, expected: Callable[[], int | None] | None = None) -> EpisodeResult:
        """What became of a run. begun_s: of time.perf_counter. first_ns: stamp of the scene's first observation.

        expected: number of its commands once it is known; they are waited for.
        """
        wall_s = time.perf_counter() - begun_s
        sent, raw = self._commands(result.run_id, expected)
        statuses = [s for s in list(self._statuses) if s.run_id == result.run_id and s.inferences]
        return EpisodeResult(
            task=task, seed=seed, instruction=instruction, success=end.reason is EndReason.SUCCEEDED,
            reason=end.reason.name, message=end.message, steps=len(sent), wall_s=wall_s,
            control_rate_hz=len(sent) / wall_s, commands=self._values(sent), requested=self._values(raw),
            latencies_ms=_latencies_ms(statuses, sent, with_ages=self._pace is Pace.REALTIME),
            on_time=self._on_time(sent) if self._pace is Pace.REALTIME else None, start_ns=first_ns)

    def _commands(self, run_id: int, expected: Callable[[], int | None] | None
                  ) -> tuple[list[RobotCommand], list[RobotCommand]]:
        """The run's commands (sent, raw)."""
        deadline = time.monotonic() + (0.1 if expected is None else SETTLE_S)
        while True:
            sent, raw = (_of_run(list(commands), run_id) for commands in (self._sent, self._raw))
            count = None if expected is None else expected()
            arrived = count is not None and min(len(sent), len(raw)) >= count
            if arrived or time.monotonic() > deadline:
                return sent[:count], raw[:count]
            time.sleep(0.005)

    def _on_time(self, sent: list[RobotCommand]) -> float | None:
        """Share of control periods whose command came within ON_TIME_FACTOR periods of the one before."""
        stamps_ns = [stamp_to_ns(command.header.stamp) for command in sent]
        if len(stamps_ns) < 2:
            return None
        period_ns = self._contract.control_dt_ns
        missed = sum(int(gap // (ON_TIME_FACTOR * period_ns)) for gap in np.diff(stamps_ns))
        periods = (stamps_ns[-1] - stamps_ns[0]) / period_ns
        return max(0.0, 1.0 - missed / periods) if periods else None

    def _values(self, commands: list[RobotCommand]) -> NDArray[np.float64]:
        return command_rows([command_from_msg(command, self._contract) for command in commands], self._contract)

    def _release_guard(self) -> Trigger.Response:
        return self._call(self._reset_guard, Trigger.Request())

    def _call(self, client: Any, request: Any) -> Any:
        return self._wait(client.call_async(request), CALL_TIMEOUT_S, f"{client.srv_name} to answer")

    def _policy_is_idle(self) -> bool:
        return bool(self._statuses) and self._statuses[-1].state == PolicyStatus.IDLE

    def _on_status(self, status: PolicyStatus) -> None:
        self._policy_heard_s = time.monotonic()
        self._statuses.append(status)

    def _wait(self, future: Future, timeout_s: float, what: str) -> Any:
        """The future's result. Raises: VlaError after `timeout_s`, when the policy node is silent, or at shutdown."""
        return wait_for(future, timeout_s, what, self._check_alive)

    def _check_alive(self, what: str) -> None:
        if time.monotonic() - self._policy_heard_s > SILENT_S:
            raise VlaError(f"no /vla/status for {SILENT_S:g} s while waiting for {what}; has the policy node ended?")

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except (ExternalShutdownException, rclpy.executors.ShutdownException):
            return


def wait_for(future: Future, timeout_s: float, what: str, check: Callable[[str], None] = lambda what: None) -> Any:
    """The future's result, which another thread brings. check: called several times a second, may raise.

    Raises: VlaError after `timeout_s` or at shutdown.
    """
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    deadline = time.monotonic() + timeout_s
    while not done.wait(0.2):
        if not rclpy.ok():
            raise VlaError(f"shut down while waiting for {what}")
        check(what)
        if time.monotonic() > deadline:
            raise VlaError(f"waited {timeout_s:g} s for {what}")
    return future.result()


def _of_run(commands: list[RobotCommand], run_id: int) -> list[RobotCommand]:
    return [command for command in commands if command.run_id == run_id]


def _latencies_ms(statuses: list[PolicyStatus], sent: list[RobotCommand], with_ages: bool) -> dict[str, list[float]]:
    """Stage -> one value an inference; in realtime also sensor stamp -> first sent command of each chunk."""
    stages = STAGES if with_ages else tuple(stage for stage in STAGES if stage not in ("image_age", "total"))
    newest = {status.inferences: status for status in statuses}
    latencies = {stage: [getattr(status, f"{stage}_ms") for status in newest.values()] for stage in stages}
    if with_ages:
        first = {}
        for command in sent:
            first.setdefault(stamp_to_ns(command.observation_stamp), stamp_to_ns(command.header.stamp))
        latencies["sensor_to_command"] = [(sent_ns - seen_ns) / NS_PER_S * 1e3 for seen_ns, sent_ns in first.items()]
    return latencies

"""Task and seed in, one EpisodeResult out, played by the nodes: resets the sim, sends the goal, listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from vla_msgs.action import RunPolicy
from vla_msgs.msg import EpisodeEvent, PolicyStatus, RobotCommand
from vla_msgs.srv import ResetSim

from sim_bridges.chains import Chain, ChainResult
from sim_bridges.results import EpisodeResult, joined
from sim_bridges.rollout import command_rows, goes_on
from sim_bridges.sim import CHAIN, NEXT_TASK
from vla_policy.contract import RobotContract
from vla_policy.errors import VlaError
from vla_policy.messages import command_from_msg, image_to_array, stamp_to_ns
from vla_policy.run import EndReason
from vla_policy.types import NS_PER_S, seconds_to_ns
from vla_policy_node.messages import ns_to_duration
from vla_policy_node.pace import LATCHED, RECORDED, Pace

READY_TIMEOUT_S = 120.0  # loading a large model takes its time
CALL_TIMEOUT_S = 60.0
SILENT_S = 20.0  # a policy node that says nothing for so long is gone
SETTLE_S = 10.0  # how long commands that were sent may take to arrive here
STAGES = ("image_age", "decode", "preprocess", "model", "postprocess", "publish", "total")
ON_TIME_FACTOR = 1.5  # a command is late when the gap before it exceeds this many control periods

Frames = Callable[[int, str, np.ndarray], None]  # (stamp_ns, camera, image)


class RosRollout:
    """A client of /sim/reset and /vla/run. `watch_images`: called with each camera image of a running episode."""

    def __init__(self, contract: RobotContract, pace: Pace, watch_images: Frames | None = None) -> None:
        self._contract = contract
        self._pace = pace
        self._node = Node("evaluate")
        self._reset = self._node.create_client(ResetSim, "/sim/reset")
        self._reset_guard = self._node.create_client(Trigger, "/vla/safety/reset")
        self._run = ActionClient(self._node, RunPolicy, "/vla/run")
        self._raw: list[RobotCommand] = []
        self._sent: list[RobotCommand] = []
        self._statuses: list[PolicyStatus] = []
        self._policy_heard_s = time.monotonic()
        self._success_ns = 0
        self._node.create_subscription(RobotCommand, "/vla/command_raw", self._raw.append, RECORDED)
        self._node.create_subscription(RobotCommand, "/vla/command", self._sent.append, RECORDED)
        self._node.create_subscription(PolicyStatus, "/vla/status", self._on_status, RECORDED)
        self._node.create_subscription(EpisodeEvent, "/vla/episode", self._on_episode, LATCHED)
        if watch_images is not None:
            self._watch_cameras(watch_images)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="ros", daemon=True)
        self._thread.start()

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait for the simulator, the guard and an active policy. Raises: VlaError naming who is missing."""
        deadline = time.monotonic() + timeout_s
        servers = {"/sim/reset": self._reset.service_is_ready, "/vla/safety/reset": self._reset_guard.service_is_ready,
                   "/vla/run": self._run.server_is_ready, "/vla/status": self._policy_is_idle}
        while missing := [name for name, ready in servers.items() if not ready()]:
            if time.monotonic() > deadline:
                raise VlaError(f"waited {timeout_s:g} s for {', '.join(missing)}; are sim_node, guard_node and an "
                               "active policy_node running on this ROS_DOMAIN_ID?")
            time.sleep(0.05)

    def play_chain(self, chain: Chain, time_limit_s: float | None = None) -> ChainResult:
        """A chain until an instruction fails; the sim draws it from its seed.

        time_limit_s: of each instruction; None: what the sim says. Raises: VlaError as `play`.
        """
        episodes = [self._play(CHAIN, chain.steps[0].task, chain.seed, time_limit_s)[0]]
        while episodes[-1].success and len(episodes) < len(chain.steps):
            episodes.append(self._play(NEXT_TASK, chain.steps[len(episodes)].task, chain.seed, time_limit_s)[0])
        return ChainResult(chain, tuple(episodes))

    def play(self, task: str, seed: int, time_limit_s: float | None = None) -> EpisodeResult:
        """One episode, with all instructions that it has; time_limit_s as in `play_chain`.

        Raises: VlaError when the sim refuses the task or a node does not answer.
        """
        part, more = self._play(task, task, seed, time_limit_s)
        parts = [part]
        while goes_on(parts[-1], more):
            part, more = self._play(NEXT_TASK, task, seed, time_limit_s)
            parts.append(part)
        return joined(parts)

    def _play(self, request: str, task: str, seed: int, time_limit_s: float | None) -> tuple[EpisodeResult, bool]:
        """An instruction that begins with a reset to `request`: the task, or the words of a chain.

        Returns what became of it, and whether the episode has more of them.
        """
        start = time.perf_counter()
        scene = self._call(self._reset, ResetSim.Request(task=request, seed=seed))
        if not scene.success:
            raise VlaError(f"/sim/reset refused task '{request}': {scene.message}")
        self._raw.clear(), self._sent.clear(), self._statuses.clear()
        limit = scene.time_limit if time_limit_s is None else ns_to_duration(seconds_to_ns(time_limit_s))
        result = self._follow(
            RunPolicy.Goal(instruction=scene.instruction, not_before=scene.stamp, time_limit=limit))
        wall_s = time.perf_counter() - start
        reason, message = self._end(result, stamp_to_ns(scene.stamp))
        if reason is EndReason.SAFETY_STOP:
            self._call(self._reset_guard, Trigger.Request())
        sent, raw = self._commands(result, stamp_to_ns(scene.stamp))
        statuses = [s for s in list(self._statuses) if s.run_id == result.run_id and s.inferences]
        episode = EpisodeResult(
            task=task, seed=seed, instruction=scene.instruction, success=reason is EndReason.SUCCEEDED,
            reason=reason.name, message=message, steps=len(sent), wall_s=wall_s,
            control_rate_hz=len(sent) / wall_s, commands=self._values(sent), requested=self._values(raw),
            latencies_ms=_latencies_ms(statuses, sent, with_ages=self._pace is Pace.REALTIME),
            on_time=self._on_time(sent) if self._pace is Pace.REALTIME else None, start_ns=stamp_to_ns(scene.stamp))
        return episode, scene.more

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._thread.join(5.0)
        self._node.destroy_node()

    def _end(self, result: RunPolicy.Result, first_ns: int) -> tuple[EndReason, str]:
        """Why it ended. A success with the very last command counts, though the run may have ended before the news."""
        end_ns = first_ns + stamp_to_ns(result.duration)
        if result.reason == EndReason.TIME_LIMIT and first_ns < self._success_ns <= end_ns:
            return EndReason.SUCCEEDED, "the success condition holds"
        return EndReason(result.reason), result.message

    def _follow(self, goal: RunPolicy.Goal) -> RunPolicy.Result:
        handle = self._wait(self._run.send_goal_async(goal), CALL_TIMEOUT_S, "/vla/run to answer")
        if not handle.accepted:
            raise VlaError("/vla/run rejected the goal: another run is active or the policy node is not active")
        # Simulated seconds may take longer than real ones: a generous end, so that a hang is not waited for for ever.
        patience_s = 60.0 + 20 * stamp_to_ns(goal.time_limit) / NS_PER_S
        return self._wait(handle.get_result_async(), patience_s, "the run to end").result

    def _commands(self, result: RunPolicy.Result, first_ns: int) -> tuple[list[RobotCommand], list[RobotCommand]]:
        """The run's commands (sent, raw). In lockstep their number is known, so the last ones are waited for."""
        complete = self._pace is Pace.LOCKSTEP and result.reason in (EndReason.SUCCEEDED, EndReason.TIME_LIMIT)
        deadline = time.monotonic() + (SETTLE_S if complete else 0.1)
        while True:
            sent, raw = (_of_run(list(commands), result.run_id) for commands in (self._sent, self._raw))
            expected = self._periods(result, first_ns) if complete else None
            arrived = expected is not None and min(len(sent), len(raw)) >= expected
            if arrived or time.monotonic() > deadline:
                return sent[:expected], raw[:expected]
            time.sleep(0.005)

    def _periods(self, result: RunPolicy.Result, first_ns: int) -> int | None:
        """Control periods from the first observation to the end; None while the news of a success is on its way."""
        if result.reason == EndReason.TIME_LIMIT:
            return stamp_to_ns(result.duration) // self._contract.control_dt_ns
        if self._success_ns <= first_ns:
            return None
        return (self._success_ns - first_ns) // self._contract.control_dt_ns

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

    def _call(self, client: Any, request: Any) -> Any:
        return self._wait(client.call_async(request), CALL_TIMEOUT_S, f"{client.srv_name} to answer")

    def _policy_is_idle(self) -> bool:
        return bool(self._statuses) and self._statuses[-1].state == PolicyStatus.IDLE

    def _on_status(self, status: PolicyStatus) -> None:
        self._policy_heard_s = time.monotonic()
        self._statuses.append(status)

    def _on_episode(self, event: EpisodeEvent) -> None:
        if event.event == EpisodeEvent.SUCCESS:
            self._success_ns = stamp_to_ns(event.header.stamp)

    def _watch_cameras(self, watch: Frames) -> None:
        for name, camera in self._contract.cameras.items():
            def forward(msg: Image, name: str = name, camera: Any = camera) -> None:
                """Hand one image message on as stamp [ns], camera name and RGB array (H, W, 3)."""
                watch(stamp_to_ns(msg.header.stamp), name, image_to_array(msg, camera))

            self._node.create_subscription(Image, camera.topic, forward, self._pace.sensor_qos)

    def _wait(self, future: Future, timeout_s: float, what: str) -> Any:
        """The future's result. Raises: VlaError after `timeout_s`, when the policy node is silent, or at shutdown."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        deadline = time.monotonic() + timeout_s
        while not done.wait(0.2):
            if not rclpy.ok():
                raise VlaError(f"shut down while waiting for {what}")
            if time.monotonic() > deadline:
                raise VlaError(f"waited {timeout_s:g} s for {what}")
            if time.monotonic() - self._policy_heard_s > SILENT_S:
                raise VlaError(f"no /vla/status for {SILENT_S:g} s while waiting for {what}; "
                               "has the policy node ended?")
        return future.result()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except (ExternalShutdownException, rclpy.executors.ShutdownException):
            return


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

"""Camera, joint and pose topics in, /vla/action_chunk out: the lifecycle node that runs a policy bundle.

Callbacks only store; one worker thread owns torch. `/vla/run` (RunPolicy) is the front door, `/instruction` the plain
one; one run at a time. The guard, another process, has the last word before the robot: without it nothing runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future
from std_msgs.msg import String
from vla_msgs.action import RunPolicy
from vla_msgs.msg import ActionChunk as ActionChunkMsg
from vla_msgs.msg import EpisodeEvent, PolicyStatus, SafetyStatus

from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.policy import Policy
from vla_policy.run import EndReason, PolicyRun, RunEnd, RunRequest
from vla_policy.types import ActionChunk
from vla_policy_node.messages import chunk_to_msg, end_of_run_msg, ns_to_duration, stamp_to_ns
from vla_policy_node.observation_streams import ObservationStreams
from vla_policy_node.pace import LATCHED, RELIABLE, Pace
from vla_policy_node.run_status import status_message
from vla_policy_node.run_worker import RunWorker

CONFIGURE_TIMEOUT_S = 300.0
STATUS_PERIOD_S = 0.5
GUARD_SETTLE_S = 1.0  # how long a run waits for a guard that is absent or still latched


class PolicyNode(LifecycleNode):
    """Wires topics to `PolicyRun` through `RunWorker`; see the module's first lines."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        self.declare_parameter("contract", "")
        self.declare_parameter("bundle", "")
        self.declare_parameter("device", "auto")
        self.declare_parameter("pace", "realtime")
        self.declare_parameter("instruction", "")
        self.declare_parameter("observation_timeout_s", 2.0)
        self.declare_parameter("autostart", True)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # sim time may stand still; patience may not
        self._worker: RunWorker | None = None
        self._active = False
        self._safety: SafetyStatus | None = None
        self._run_id = time.time_ns() // 1_000_000  # a restarted node must not reuse the ids of its runs
        self._ended: Future | None = None
        self._entities: list[tuple[Any, Any]] = []

    # ---- lifecycle ----------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle, hold it against the contract, warm it up. A mismatch refuses in one line."""
        try:
            self._configure()
        except (VlaError, TimeoutError) as problem:
            self.get_logger().error(str(problem))
            self._tear_down()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Accept runs; start the one of the `instruction` parameter if it is set."""
        self._active = True
        instruction = self._text("instruction")
        if instruction:
            self._begin(RunRequest(self._next_run_id(), instruction))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the run and accept no other."""
        self._active = False
        self._worker.end(EndReason.DEACTIVATED, "the policy node was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    def bring_up(self) -> bool:
        """Configure and activate without a lifecycle manager; False when the node refused."""
        good = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == good and self.trigger_activate() == good

    def close(self) -> None:
        """End the run and free the policy, whatever the lifecycle state."""
        self._tear_down()
        self.destroy_node()

    def _configure(self) -> None:
        self._contract = load_contract(_required_path(self._text("contract"), "contract", "config/robots/<robot>.yaml"))
        bundle = _required_path(self._text("bundle"), "bundle", "the folder of a policy bundle")
        pace = Pace.parse(self._text("pace"))
        self._worker = RunWorker(lambda: self.get_clock().now().nanoseconds, self._on_chunk, self._on_end)
        self._policy: Policy = self._worker.call(lambda: self._load(bundle), CONFIGURE_TIMEOUT_S)
        self._streams = ObservationStreams(self, self._contract, pace, self._worker.notify)
        self._chunks = self._publisher(ActionChunkMsg, "/vla/action_chunk", RELIABLE)
        self._statuses = self._publisher(PolicyStatus, "/vla/status", RELIABLE)
        self._subscribe(SafetyStatus, "/vla/safety", self._on_safety, LATCHED)
        self._subscribe(EpisodeEvent, "/vla/episode", self._on_episode, LATCHED)
        self._subscribe(String, "/instruction", self._on_instruction, RELIABLE)
        timer = self.create_timer(STATUS_PERIOD_S, self._publish_status, clock=self._steady)
        self._entities.append((timer, self.destroy_timer))
        self._server = ActionServer(self, RunPolicy, "/vla/run", self._execute, goal_callback=self._on_goal,
                                    cancel_callback=self._on_cancel)
        names = ", ".join(self._policy.config.cameras)
        self.get_logger().info(f"policy {bundle} is ready for {self._contract.name} (cameras {names})")

    def _load(self, bundle: Path) -> Policy:
        policy = Policy.load(bundle, device=self._text("device"), robot=self._contract)
        policy.warm_up()
        return policy

    def _tear_down(self) -> None:
        self._active = False
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        if getattr(self, "_streams", None) is not None:
            self._streams.destroy()
            self._server.destroy()
            self._streams = None
        for entity, destroy in self._entities:
            destroy(entity)
        self._entities.clear()

    # ---- the run ------------------------------------------------------------------------------------------------

    def _next_run_id(self) -> int:
        self._run_id += 1
        return self._run_id

    def _begin(self, request: RunRequest) -> bool:
        """Start a run; False while another is active. Its end comes through `_on_end`."""
        run = PolicyRun(request, self._policy, self._streams.buffer, self._streams.decode, self._policy.config.cameras,
                        slack_ns=self._contract.action_dt_ns // 2,
                        lost_after_s=self.get_parameter("observation_timeout_s").value)
        if not self._worker.start(run):
            return False
        self.get_logger().info(f"run {request.run_id}: '{request.instruction}'")
        self._check_guard(request.run_id, patience_s=GUARD_SETTLE_S)
        return True

    def _check_guard(self, run_id: int, patience_s: float) -> None:
        """End run `run_id` if no guard speaks or the guard is latched, after `patience_s` of a second look."""
        run = self._worker.run
        if run is None or run.request.run_id != run_id:
            return
        words = self._guard_fault()
        if words is None:
            return
        if patience_s > 0:
            self._once(patience_s, lambda: self._check_guard(run_id, 0.0))
        else:
            self._worker.end(EndReason.SAFETY_STOP, words)

    def _guard_fault(self) -> str | None:
        if self._safety is None:
            return "no guard speaks on /vla/safety; start guard_node before a run"
        if self._safety.state == SafetyStatus.STOPPED:
            return f"the guard is latched: {self._safety.message}; call /vla/safety/reset"
        return None

    def _once(self, delay_s: float, action: Any) -> None:
        def fire() -> None:
            self.destroy_timer(timer)
            action()

        timer = self.create_timer(delay_s, fire, clock=self._steady)

    # ---- worker thread ------------------------------------------------------------------------------------------

    def _on_chunk(self, run: PolicyRun, chunk: ActionChunk) -> None:
        start = time.perf_counter()
        self._chunks.publish(chunk_to_msg(chunk, self._contract))
        progress = run.progress
        progress.timings_ms["publish"] = (time.perf_counter() - start) * 1e3
        progress.timings_ms["total"] = (self.get_clock().now().nanoseconds - progress.oldest_image_ns) / 1e6
        self._publish_status(run)

    def _on_end(self, run: PolicyRun, end: RunEnd) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self._chunks.publish(end_of_run_msg(run.request.run_id, now_ns, self._contract))
        log = self.get_logger().info if end.reason <= EndReason.CANCELED else self.get_logger().error
        log(f"run {run.request.run_id} ended: {end.reason.name}: {end.message}")
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.set_result((run, end))

    # ---- topics -------------------------------------------------------------------------------------------------

    def _on_safety(self, msg: SafetyStatus) -> None:
        self._safety = msg
        run = self._worker.run if self._worker else None
        if run is not None and msg.state == SafetyStatus.STOPPED and msg.run_id == run.request.run_id:
            self._worker.end(EndReason.SAFETY_STOP, msg.message)

    def _on_episode(self, msg: EpisodeEvent) -> None:
        run = self._worker.run if self._worker else None
        if run is None or msg.event == EpisodeEvent.START:
            return
        if stamp_to_ns(msg.header.stamp) <= (run.progress.first_ns or run.request.not_before_ns):
            return  # the end of an earlier episode
        reason = EndReason.SUCCEEDED if msg.event == EpisodeEvent.SUCCESS else EndReason.FAILED
        self._worker.end(reason, msg.message or f"{msg.task}: {reason.name.lower()}")

    def _on_instruction(self, msg: String) -> None:
        """Start, change or (empty text) stop a run without a client; a run of an action client is left alone."""
        if not self._active:
            self.get_logger().warning(f"/instruction '{msg.data}' ignored: the node is not active")
        elif self._ended is not None:
            self.get_logger().warning(f"/instruction '{msg.data}' refused: a /vla/run client owns the run; cancel it first")
        else:
            self._worker.end(EndReason.CANCELED, "a new /instruction came")
            if msg.data.strip():
                self._begin_when_free(RunRequest(self._next_run_id(), msg.data))

    def _begin_when_free(self, request: RunRequest, tries: int = 40) -> None:
        """Start as soon as the worker has let go of the previous run; it does so after the step under way."""
        if not self._begin(request):
            if tries == 0:
                self.get_logger().error(f"run {request.run_id}: the previous run did not end; send the instruction again")
            else:
                self._once(0.05, lambda: self._begin_when_free(request, tries - 1))

    # ---- the RunPolicy action -----------------------------------------------------------------------------------

    def _on_goal(self, goal: RunPolicy.Goal) -> GoalResponse:
        if not self._active or self._worker.run is not None or self._ended is not None:
            why = "another run is active; cancel it first" if self._active else "the node is not active"
            self.get_logger().warning(f"goal '{goal.instruction}' rejected: {why}")
            return GoalResponse.REJECT
        self._ended = Future(executor=self.executor)
        return GoalResponse.ACCEPT

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        self._worker.end(EndReason.CANCELED, "canceled by the client")
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> RunPolicy.Result:
        goal, ended = handle.request, self._ended
        request = RunRequest(self._next_run_id(), goal.instruction, stamp_to_ns(goal.time_limit),
                             stamp_to_ns(goal.not_before))
        if not self._begin(request):
            self._ended = None
            handle.abort()
            return RunPolicy.Result(reason=int(EndReason.DEACTIVATED), message="the node stopped accepting runs",
                                    run_id=request.run_id)
        feedback = self.create_timer(STATUS_PERIOD_S, lambda: self._publish_feedback(handle), clock=self._steady)
        run, end = await ended
        self.destroy_timer(feedback)
        self._close_goal(handle, end)
        return RunPolicy.Result(reason=int(end.reason), message=end.message, run_id=run.request.run_id,
                                inferences=run.progress.inferences, duration=ns_to_duration(run.progress.elapsed_ns))

    @staticmethod
    def _close_goal(handle: ServerGoalHandle, end: RunEnd) -> None:
        if end.reason is EndReason.CANCELED and handle.is_cancel_requested:
            handle.canceled()
        elif end.reason in (EndReason.SUCCEEDED, EndReason.TIME_LIMIT):
            handle.succeed()
        else:
            handle.abort()

    def _publish_feedback(self, handle: ServerGoalHandle) -> None:
        run = self._worker.run if self._worker else None
        if run is not None and handle.is_active:
            progress = run.progress
            handle.publish_feedback(RunPolicy.Feedback(
                run_id=run.request.run_id, inferences=progress.inferences, elapsed=ns_to_duration(progress.elapsed_ns),
                status=progress.waiting_for or "running"))

    def _publish_status(self, run: PolicyRun | None = None) -> None:
        run = run or (self._worker.run if self._worker else None)
        self._statuses.publish(status_message(self.get_clock().now().nanoseconds, self._active, run,
                                              self._streams.buffer, self._policy.history_frames))

    # ---- small helpers ------------------------------------------------------------------------------------------

    def _text(self, name: str) -> str:
        return str(self.get_parameter(name).value)

    def _publisher(self, kind: type, topic: str, qos: Any) -> Any:
        publisher = self.create_publisher(kind, topic, qos)
        self._entities.append((publisher, self.destroy_publisher))
        return publisher

    def _subscribe(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
        self._entities.append((self.create_subscription(kind, topic, callback, qos), self.destroy_subscription))


def _required_path(text: str, parameter: str, expected: str) -> Path:
    if not text:
        raise VlaError(f"parameter '{parameter}' is empty; expected {expected}, e.g. --ros-args -p {parameter}:=PATH")
    return Path(text)


def main() -> None:
    """Run the node; with `autostart` it configures and activates itself and leaves with code 1 if it cannot."""
    rclpy.init()
    node = PolicyNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 0
    try:
        if node.get_parameter("autostart").value and not node.bring_up():
            code = 1
        else:
            executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        rclpy.try_shutdown()
    sys.exit(code)


if __name__ == "__main__":
    main()

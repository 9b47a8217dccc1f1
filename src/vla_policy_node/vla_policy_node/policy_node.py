"""Camera, joint and pose topics in, /vla/action_chunk out: the lifecycle node that runs a policy bundle.

Callbacks only store; one worker thread owns torch. `/vla/run` (RunPolicy) is the front door, `/instruction` the plain
one; one run at a time. The guard, another process, has the last word before the robot: without it nothing runs.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_msgs.msg import String
from vla_msgs.action import RunPolicy
from vla_msgs.msg import ActionChunk as ActionChunkMsg
from vla_msgs.msg import EpisodeEvent, PolicyStatus, SafetyStatus

from vla_policy.contract import load_contract
from vla_policy.errors import VlaError, choose
from vla_policy.execution import Execution, PacedPolicy, check_execution
from vla_policy.messages import stamp_to_ns
from vla_policy.remote.client import RemotePolicy, connect
from vla_policy.resources import is_server
from vla_policy.run import EndReason, PolicyRun, RunEnd, RunRequest
from vla_policy.types import ActionChunk
from vla_policy_node.guard_watch import GuardWatch
from vla_policy_node.messages import chunk_to_msg, end_of_run_msg, ns_to_duration
from vla_policy_node.observation_streams import ObservationStreams
from vla_policy_node.pace import LATCHED, RECORDED, RELIABLE, Pace
from vla_policy_node.run_status import status_message
from vla_policy_node.run_worker import RunWorker
from vla_policy_node.serving import serve_until_signal

if TYPE_CHECKING:
    from vla_policy.policy import Policy

CONFIGURE_TIMEOUT_S = 300.0
STATUS_PERIOD_S = 0.5
LOCKSTEP_LOST_S = 30.0  # a slow simulator is no fault
REALTIME_LOST_SHARE = 0.8  # of the guard's silence: a run without a camera ends by name before the guard latches
CLOSE_TIMEOUT_S = 3.0
LAST_WORDS_S = 1.0  # how long a node that leaves waits until its guard and client have heard so
RESULT_ON_ITS_WAY_S = 0.3  # rclpy sends it some callbacks later and does not say when it has arrived
EXIT_REFUSED = 1


@dataclass(frozen=True, slots=True)
class _ClientRun:
    """The run of an action client, from the accepted goal to its result."""

    run_id: int
    ended: Future = field(default_factory=Future)


class PolicyNode(LifecycleNode):
    """Wires topics to `PolicyRun` through `RunWorker`; see the module's first lines."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        self.declare_parameter("contract", "")
        self.declare_parameter("bundle", "")
        self.declare_parameter("device", "auto")
        self.declare_parameter("dtype", "float32")
        self.declare_parameter("engine", "eager")
        self.declare_parameter("resize", "host")
        self.declare_parameter("pace", "realtime")
        self.declare_parameter("execution", Execution.ASYNC.value)
        self.declare_parameter("instruction", "")
        self.declare_parameter("observation_timeout_s", 0.0)  # 0: the pace's own
        self.declare_parameter("autostart", True)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # sim time may stand still; patience may not
        self._worker: RunWorker | None = None
        self._policy: Policy | RemotePolicy | None = None
        self._streams: ObservationStreams | None = None
        self._active = False
        self._guard = GuardWatch()
        self._run_id = time.time_ns() // 1_000_000  # a restarted node must not reuse the ids of its runs
        self._client: _ClientRun | None = None
        self._entities: list[tuple[Any, Any]] = []
        # It lives as long as the node, so that the result of a run reaches its client after a clean-up too.
        self._server = ActionServer(self, RunPolicy, "/vla/run", self._execute, goal_callback=self._on_goal,
                                    cancel_callback=self._on_cancel)

    # ---- lifecycle ----------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle or reach the server, hold it to the contract, warm up. A mismatch refuses in one line."""
        try:
            self._configure()
        except (VlaError, TimeoutError) as problem:
            self.get_logger().error(str(problem) or f"not configured within {CONFIGURE_TIMEOUT_S:g} s")
        except Exception:  # noqa: BLE001 - rclpy would swallow it without a word
            self.get_logger().error(f"configuring failed:\n{traceback.format_exc()}")
        else:
            return TransitionCallbackReturn.SUCCESS
        self._tear_down()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Accept runs; start the one of the `instruction` parameter if it is set."""
        self._active = True
        instruction = self._text("instruction")
        if instruction:
            self._worker.replace(self._make_run(RunRequest(self._next_run_id(), instruction)))
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
        """End the run, tell guard and client, free the policy; whatever the lifecycle state."""
        self._active = False
        if self._worker is not None and self._worker.run is not None:
            self._worker.end(EndReason.DEACTIVATED, "the policy node was shut down")
            self._serve_while(lambda: self._worker.run is not None or self._client is not None, LAST_WORDS_S)
            self._chunks.wait_for_all_acked(Duration(seconds=LAST_WORDS_S))
            self._serve_while(lambda: True, RESULT_ON_ITS_WAY_S)
        self._tear_down()
        self._server.destroy()
        self.destroy_node()

    def _serve_while(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while condition() and time.monotonic() < deadline_s:
            self.executor.spin_once(timeout_sec=0.02)

    def _configure(self) -> None:
        self._contract = load_contract(_required_path(self._text("contract"), "contract", "config/robots/<robot>.yaml"))
        bundle = self._text("bundle")
        if not is_server(bundle):
            _required_path(bundle, "bundle", "the folder of a policy bundle or the address of a policy server")
        self._pace = pace = choose(Pace, "pace", self._text("pace"))
        self._execution = choose(Execution, "execution", self._text("execution"))
        self._worker = RunWorker(lambda: self.get_clock().now().nanoseconds, self._on_chunk, self._on_end)
        self._policy = self._worker.call(lambda: self._load(bundle), CONFIGURE_TIMEOUT_S)
        check_execution(self._policy, self._execution)
        self._streams = ObservationStreams(self, self._contract, pace, self._worker.notify)
        self._chunks = self._publisher(ActionChunkMsg, "/vla/action_chunk", RELIABLE)
        self._statuses = self._publisher(PolicyStatus, "/vla/status", RECORDED)
        self._subscribe(SafetyStatus, "/vla/safety", self._on_safety, LATCHED)
        self._subscribe(EpisodeEvent, "/vla/episode", self._on_episode, LATCHED)
        self._subscribe(String, "/instruction", self._on_instruction, RELIABLE)
        timer = self.create_timer(STATUS_PERIOD_S, self._on_timer, clock=self._steady)
        self._entities.append((timer, self.destroy_timer))
        names = ", ".join(self._policy.cameras)
        self.get_logger().info(f"policy {bundle} is ready for {self._contract.name} (cameras {names})")

    def _load(self, bundle: str) -> Policy | RemotePolicy:
        if is_server(bundle):
            return connect(bundle, self._contract)
        from vla_policy.policy import Policy  # torch takes seconds to import; by now signals are heard

        policy = Policy.load(bundle, device=self._text("device"), robot=self._contract,
                             dtype=self._text("dtype"), engine=self._text("engine"), resize=self._text("resize"))
        policy.warm_up()
        self.get_logger().info(f"engine {policy.engine_in_words}")
        return policy

    def _tear_down(self) -> None:
        self._active = False
        if self._worker is not None:
            # Once configured the thread ends after the step under way; a load that was interrupted is not waited for.
            self._worker.close(CLOSE_TIMEOUT_S if self._streams is not None else 0.0)
            self._worker = None
        self._policy = None  # the next bundle may need its memory
        if self._streams is not None:
            self._streams.destroy()
            self._streams = None
        for entity, destroy in self._entities:
            destroy(entity)
        self._entities.clear()

    # ---- the run ------------------------------------------------------------------------------------------------

    def _next_run_id(self) -> int:
        self._run_id += 1
        return self._run_id

    def _make_run(self, request: RunRequest) -> PolicyRun:
        # Lockstep stamps are exact; a robot's cameras jitter around their period.
        slack_ns = 0 if self._pace is Pace.LOCKSTEP else self._contract.action_dt_ns // 2
        self.get_logger().info(f"run {request.run_id}: '{request.instruction}'")
        paced = PacedPolicy(self._policy, self._contract, self._execution, slack_ns)
        return PolicyRun(request, paced, self._streams.buffer, self._streams.decode, self._policy.cameras,
                         self._lost_after_s())

    def _lost_after_s(self) -> float:
        given_s = float(self.get_parameter("observation_timeout_s").value)
        if given_s > 0:
            return given_s
        if self._pace is Pace.LOCKSTEP:
            return LOCKSTEP_LOST_S
        return REALTIME_LOST_SHARE * self._contract.watchdog.silence_s

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
        words = f"run {run.request.run_id} ended: {end.reason.name}: {end.message}"
        if end.reason <= EndReason.CANCELED:
            self.get_logger().info(words)
        else:
            self.get_logger().error(words)  # rclpy wants one severity a line of code
        client = self._client
        if client is not None and client.run_id == run.request.run_id:
            client.ended.set_result((run, end))
            self.executor.wake()  # while simulated time waits no message does

    # ---- topics -------------------------------------------------------------------------------------------------

    def _on_safety(self, msg: SafetyStatus) -> None:
        self._guard.hear(msg)
        run = self._worker.run
        if run is not None and msg.state == SafetyStatus.STOPPED and msg.run_id == run.request.run_id:
            starved = msg.reason in (SafetyStatus.SILENCE, SafetyStatus.CHUNK_STALE)  # then say what the run waits for
            words = [self._guard.fault(), run.progress.waiting_for if starved else ""]
            self._worker.end(EndReason.SAFETY_STOP, "; ".join(filter(None, words)), only=run)

    def _on_episode(self, msg: EpisodeEvent) -> None:
        run, stamp_ns = self._worker.run, stamp_to_ns(msg.header.stamp)
        if run is None or stamp_ns <= (run.progress.first_ns or run.request.not_before_ns):
            return  # news of an earlier episode
        if msg.event == EpisodeEvent.START:
            run.begin_episode(stamp_ns)
            return
        reason = EndReason.SUCCEEDED if msg.event == EpisodeEvent.SUCCESS else EndReason.FAILED
        self._worker.end(reason, msg.message or f"{msg.task}: {reason.name.lower()}", only=run)

    def _on_instruction(self, msg: String) -> None:
        """Start, change or (empty text) stop a run without a client; a run of an action client is left alone."""
        if not self._active:
            self.get_logger().warning(f"/instruction '{msg.data}' ignored: the node is not active")
        elif self._client is not None:
            self.get_logger().warning(f"/instruction '{msg.data}' refused: a /vla/run client owns the run; "
                                      "cancel it first")
        elif msg.data.strip():
            self._worker.replace(self._make_run(RunRequest(self._next_run_id(), msg.data)))
        else:
            self._worker.end(EndReason.CANCELED, "an empty /instruction came")

    # ---- the RunPolicy action -----------------------------------------------------------------------------------

    def _on_goal(self, goal: RunPolicy.Goal) -> GoalResponse:
        if not self._active or self._worker.run is not None or self._client is not None:
            why = "another run is active; cancel it first" if self._active else "the node is not active"
            self.get_logger().warning(f"goal '{goal.instruction}' rejected: {why}")
            return GoalResponse.REJECT
        self._client = _ClientRun(self._next_run_id())
        return GoalResponse.ACCEPT

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if self._worker is not None:
            self._worker.end(EndReason.CANCELED, "canceled by the client")
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> RunPolicy.Result:
        client, goal = self._client, handle.request
        request = RunRequest(client.run_id, goal.instruction, stamp_to_ns(goal.time_limit),
                             stamp_to_ns(goal.not_before))
        if not (self._active and self._worker.start(self._make_run(request))):
            self._client = None
            handle.abort()
            return RunPolicy.Result(reason=int(EndReason.DEACTIVATED), run_id=request.run_id,
                                    message="the policy node was deactivated before the run began")
        if handle.is_cancel_requested:
            self._on_cancel(handle)
        feedback = self.create_timer(STATUS_PERIOD_S, lambda: self._publish_feedback(handle), clock=self._steady)
        run, end = await client.ended
        self.destroy_timer(feedback)
        self._client = None
        self._close_goal(handle, end)
        return RunPolicy.Result(reason=int(end.reason), message=end.message, run_id=request.run_id,
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

    def _on_timer(self) -> None:
        run = self._worker.run
        fault = self._guard.lasting_fault(run.request.run_id) if run is not None else None
        if fault is not None:
            self._worker.end(EndReason.SAFETY_STOP, fault, only=run)
        self._publish_status()

    def _publish_status(self, run: PolicyRun | None = None) -> None:
        run = run or self._worker.run
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
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as SIGINT does, it ends a long configure
    executor = SingleThreadedExecutor()
    node: PolicyNode | None = None
    code = 0
    try:
        node = PolicyNode()
        executor.add_node(node)
        if node.get_parameter("autostart").value and not node.bring_up():
            code = EXIT_REFUSED
        else:
            serve_until_signal(executor)
    except KeyboardInterrupt:
        rclpy.logging.get_logger("policy_node").info("interrupted before it was ready")
    except ParameterException as problem:
        rclpy.logging.get_logger("policy_node").error(str(problem))
        code = EXIT_REFUSED
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    sys.exit(code)


if __name__ == "__main__":
    main()

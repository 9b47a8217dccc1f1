"""Action chunks and the robot's state in, limited and watched commands out: the process that has the last word.

Chunks come from a policy and, at realtime pace, from an operator, whose are heard before the policy's.

Apart from the policy's process, and free of torch, so that it stops the robot when the policy hangs or dies. The
thinking stands in `vla_policy.action.guard`; this node gives it messages and clocks, and publishes what it decides.
"""

from __future__ import annotations

import math
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from vla_msgs.msg import ActionChunk, RobotCommand, SafetyStatus

from vla_policy.action.arbiter import Driver
from vla_policy.action.guard import Guard
from vla_policy.action.safety import Decision, GuardState, SafetyState, StopReason
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, ContractError, choose
from vla_policy.execution import Execution
from vla_policy.messages import chunk_from_msg
from vla_policy.recording import INTERVENTION_TOPIC
from vla_policy.types import NS_PER_S, Command
from vla_policy_node.messages import command_to_msg, make_header
from vla_policy_node.operator_topics import OPERATOR_TOPIC, TAKE_OVER_SERVICE
from vla_policy_node.pace import LATCHED, RECORDED, RELIABLE, Pace
from vla_policy_node.robot_output import RobotOutput
from vla_policy_node.robot_state import RobotState
from vla_policy_node.serving import run_node

LOCKSTEP_SILENCE_S = 60.0  # simulated time waits for the policy: a slow one is no danger, a dead one is noticed
LOCKSTEP_WATCH_S = 0.1
STATUS_PERIOD_S = 1.0
LAST_WORDS_S = 0.5  # how long a guard that is shut down waits for its stop to arrive

_LEVELS = {GuardState.IDLE: DiagnosticStatus.OK, GuardState.ACTIVE: DiagnosticStatus.OK,
           GuardState.LIMITING: DiagnosticStatus.WARN, GuardState.STOPPED: DiagnosticStatus.ERROR}


class GuardNode(Node):
    """Wires topics to `Guard`. Raises: VlaError for a contract or parameter that cannot be used."""

    def __init__(self) -> None:
        super().__init__("guard_node")
        any_number = ParameterDescriptor(dynamic_typing=True)
        contract_path = self.declare_parameter("contract", "").value
        if not contract_path:
            raise ConfigError("parameter 'contract': got nothing, expected the path of a robot contract, "
                              "e.g. --ros-args -p contract:=config/robots/tabletop.yaml")
        self._pace = choose(Pace, "parameter 'pace'", self.declare_parameter("pace", Pace.REALTIME.value).value)
        execution = choose(Execution, "parameter 'execution'",
                           self.declare_parameter("execution", Execution.ASYNC.value).value)
        silence_s = _silence(self.declare_parameter("silence_s", 0.0, any_number).value, self._pace)
        self._contract = load_contract(contract_path)
        self._guard = Guard(self._contract, blend=execution.blend, silence_s=silence_s)
        self._estops = {"topic": False, "service": False}  # either presses it, both must release it
        self._commanded_ns = -1  # lockstep: the instant of the last command
        self._last_sent: Command | None = None
        self._told: SafetyState | None = None
        self._told_intervention: bool | None = None
        self._warned_runs: dict[str, int] = {}
        self._make_publishers()
        self._make_subscriptions()
        self._make_timers()
        self._tell()

    def shut_down(self) -> None:
        """Stop the robot, if it was ever driven, and say so before leaving."""
        if self._guard.run_id:
            if self._guard.status.state is not GuardState.IDLE:
                self._guard.stop(StopReason.ESTOP, "the guard was shut down")
            state = self._state.newest
            now_ns = self._now_ns()
            self._publish(self._guard.command(now_ns, state, time.monotonic_ns()))
            self._output.flush(LAST_WORDS_S)

    # ---- wiring -------------------------------------------------------------------------------------------------

    def _make_publishers(self) -> None:
        self._raw = self.create_publisher(RobotCommand, "/vla/command_raw", RECORDED)
        self._sent = self.create_publisher(RobotCommand, "/vla/command", RECORDED)
        self._safety = self.create_publisher(SafetyStatus, "/vla/safety", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._intervention = self.create_publisher(Bool, INTERVENTION_TOPIC, LATCHED)
        self._output = RobotOutput(self, self._contract)

    def _make_subscriptions(self) -> None:
        self._state = RobotState(self, self._contract, self._pace, self._on_state)
        self.create_subscription(ActionChunk, "/vla/action_chunk", lambda msg: self._on_chunk(msg, Driver.POLICY),
                                 RELIABLE)
        if self._pace is Pace.REALTIME:  # an operator has a pace, and no simulator can wait for it
            self.create_subscription(ActionChunk, OPERATOR_TOPIC, lambda msg: self._on_chunk(msg, Driver.OPERATOR),
                                     RELIABLE)
            self.create_service(SetBool, TAKE_OVER_SERVICE, self._on_take_over)
        self.create_subscription(Bool, "/vla/estop", lambda msg: self._on_estop("topic", msg.data), RELIABLE)
        self.create_service(SetBool, "/vla/set_estop", self._on_set_estop)
        self.create_service(Trigger, "/vla/safety/reset", self._on_reset)

    def _make_timers(self) -> None:
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # ROS time may be simulated and stand still
        if self._pace is Pace.REALTIME:
            period_s = self._contract.control_dt_ns / NS_PER_S
            self._timer = self.create_timer(period_s, self._command_now, clock=steady)
        else:
            self._timer = self.create_timer(LOCKSTEP_WATCH_S, self._watch, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._repeat_status, clock=steady)

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # ---- inputs -------------------------------------------------------------------------------------------------

    def _on_chunk(self, msg: ActionChunk, driver: Driver) -> None:
        if not self._hear(msg, driver):
            self._tell()
        elif self._pace is Pace.LOCKSTEP:
            self._command_instant()
        else:
            # A fresh chunk goes out at once; the ticks then keep this phase, so latency does not depend on chance.
            self._command_now()
            self._timer.reset()

    def _hear(self, msg: ActionChunk, driver: Driver) -> bool:
        """Hand a message to the guard; whether it may have changed what the robot gets."""
        steady_ns = time.monotonic_ns()
        if msg.end_of_run:
            self._guard.end_run(msg.run_id, steady_ns)
            return True
        ignored = self._guard.ignored_chunks
        try:
            heard = self._guard.accept(chunk_from_msg(msg, self._contract), steady_ns, driver)
        except ContractError as problem:
            self._guard.refuse(msg.run_id, str(problem), driver)
            return True
        if self._guard.ignored_chunks > ignored:
            self._warn_once("ignored", msg.run_id, f"chunks of run {msg.run_id} are ignored: it is over, or it came "
                            "while the guard was stopped; start a new run")
        return heard

    def _on_take_over(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            self._guard.take_over()
        else:
            self._guard.hand_back(self._now_ns())
        self._command_now()
        response.success, response.message = True, self._guard.status.message
        return response

    def _on_state(self) -> None:
        if self._pace is Pace.LOCKSTEP:
            state = self._state.simultaneous
            if state is not None and state.stamp_ns == self._commanded_ns and self._last_sent is not None:
                self._output.send(self._last_sent)  # a simulator that repeats an instant did not get its command
            else:
                self._command_instant()

    def _on_estop(self, source: str, pressed: bool) -> None:
        self._estops[source] = pressed
        self._guard.estop(any(self._estops.values()))
        if any(self._estops.values()):
            self._stop_now()

    def _on_set_estop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._on_estop("service", request.data)
        response.success = True
        response.message = self._guard.status.message
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._guard.reset()
        self._tell()
        return response

    # ---- commands -----------------------------------------------------------------------------------------------

    def _command_now(self) -> None:
        """realtime: the command for the present time."""
        self._publish(self._guard.command(self._now_ns(), self._state.newest, time.monotonic_ns()))

    def _command_instant(self) -> None:
        """lockstep: the command for the instant of the newest state, once, when its chunk is there."""
        state = self._state.simultaneous
        if state is None or state.stamp_ns == self._commanded_ns or self._guard.must_wait(state.stamp_ns):
            self._tell()
            return
        self._commanded_ns = state.stamp_ns
        self._publish(self._guard.command(state.stamp_ns, state, time.monotonic_ns()))

    def _stop_now(self) -> None:
        if self._pace is Pace.REALTIME:
            self._command_now()
        else:
            self._command_instant()

    def _watch(self) -> None:
        """lockstep: no command may be due for long, so the watchdog looks by itself."""
        state = self._state.simultaneous
        if state is not None:
            self._guard.watch(state.stamp_ns, time.monotonic_ns())
            if self._guard.status.state is GuardState.STOPPED:
                self._command_instant()

    def _publish(self, decision: Decision) -> None:
        self._last_sent = decision.sent
        origin = (decision.observation_stamp_ns, decision.row)
        if decision.sent is not None:
            self._output.send(decision.sent)  # the robot first
            self._sent.publish(command_to_msg(decision.sent, self._contract, decision.run_id, *origin))
        if decision.raw is not None:
            self._raw.publish(command_to_msg(decision.raw, self._contract, decision.status.run_id, *origin))
        self._tell()

    # ---- status -------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Publish and log what changed since the last time."""
        if self._guard.operator_has_control != self._told_intervention:
            if self._guard.operator_has_control:
                self.get_logger().info("the operator has taken over")
            self._publish_intervention()
        status, before = self._guard.status, self._told
        if status == before:
            return
        self._told = status
        self._publish_safety(status)
        if before is None or (status.state, status.reason) != (before.state, before.reason):
            self._publish_diagnostics(status)
            self._log(status, before)
        elif status.state is GuardState.IDLE:  # another sentence: who is waited for, who has control
            self._log(status, before)

    def _repeat_status(self) -> None:
        self._publish_intervention()
        self._publish_safety(self._guard.status)
        self._publish_diagnostics(self._guard.status)

    def _log(self, status: SafetyState, before: SafetyState | None) -> None:
        if status.state is GuardState.STOPPED:
            self.get_logger().error(f"STOPPED, {status.reason.name}: {status.message}; /vla/safety/reset ends it")
        elif self._guard.operator_has_control and (before is None or before.state is not GuardState.STOPPED):
            self.get_logger().debug(status.message)  # at each press of a key or switch; the operator sees it
        elif status.state is GuardState.LIMITING:
            self._warn_once("limiting", status.run_id, f"run {status.run_id} is {status.message}")
        elif before is None or before.state is not GuardState.LIMITING or status.state is GuardState.IDLE:
            self.get_logger().info(f"{status.state.name}: {status.message}")

    def _warn_once(self, cause: str, run_id: int, text: str) -> None:
        """One warning a cause and run."""
        if self._warned_runs.get(cause) != run_id:
            self._warned_runs[cause] = run_id
            self.get_logger().warning(text)

    def _publish_intervention(self) -> None:
        self._told_intervention = self._guard.operator_has_control
        self._intervention.publish(Bool(data=self._told_intervention))

    def _publish_safety(self, status: SafetyState) -> None:
        self._safety.publish(SafetyStatus(header=make_header(self._now_ns(), ""), state=int(status.state),
                                          reason=int(status.reason), message=status.message,
                                          limited=list(status.limited), run_id=status.run_id))

    def _publish_diagnostics(self, status: SafetyState) -> None:
        values = {"state": status.state.name, "reason": status.reason.name, "run_id": status.run_id,
                  "chunks_dropped": self._guard.dropped_chunks, "chunks_ignored": self._guard.ignored_chunks,
                  "chunks_overruled": self._guard.overruled_chunks,
                  "operator_has_control": self._guard.operator_has_control}
        item = DiagnosticStatus(level=_LEVELS[status.state], name="vla: guard", message=status.message,
                                hardware_id=self._contract.name,
                                values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])
        self._diagnostics.publish(DiagnosticArray(header=make_header(self._now_ns(), ""), status=[item]))


def _silence(value: object, pace: Pace) -> float | None:
    """The watchdog's time for a `silence_s` parameter; 0 is the pace's own: the contract's, or that of lockstep."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value < 0:
        raise ConfigError(f"parameter 'silence_s': got {value!r}, expected seconds, 0: default, .inf: none")
    if value:
        return float(value)
    return LOCKSTEP_SILENCE_S if pace is Pace.LOCKSTEP else None


def main() -> None:
    """Run the guard until a signal; exit code 2 and one line when it cannot start."""
    run_node("guard_node", GuardNode)


if __name__ == "__main__":
    main()

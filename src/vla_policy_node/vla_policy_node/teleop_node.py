"""An operator's device and the robot's state in; chunks on /vla/teleop/action_chunk, which the guard hears first, out.

The thinking stands in `vla_policy.teleop`; this node gives it messages and clocks. Presses become calls of the guard's
and the recorder's services. Nothing here reaches the robot but through the guard.
"""

from __future__ import annotations

import math
import time
from collections import deque

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import LoggingSeverity
from rclpy.node import Node
from std_msgs.msg import Bool
from vla_msgs.msg import ActionChunk, RecordingStatus, RobotCommand, SafetyStatus, TeleopStatus
from vla_msgs.srv import StartRecording

from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, choose
from vla_policy.recording import COMMAND_TOPIC, INTERVENTION_TOPIC
from vla_policy.resources import find_contract, find_teleop
from vla_policy.teleop.mapping import Device, KeyboardMapping, LeaderMapping, load_mapping
from vla_policy.teleop.operator import REACH_S, GuardWord, Operator, Step
from vla_policy.teleop.planner import make_planner
from vla_policy.teleop.screen import Terminal
from vla_policy.teleop.wish import Press
from vla_policy.types import NS_PER_S
from vla_policy_node.guard_watch import GuardWatch
from vla_policy_node.messages import chunk_to_msg, end_of_run_msg, make_header
from vla_policy_node.operator_calls import OperatorCalls
from vla_policy_node.operator_topics import OPERATOR_TOPIC, TELEOP_STATUS_TOPIC
from vla_policy_node.pace import LATCHED, LATEST_ONLY, RELIABLE, Pace
from vla_policy_node.robot_state import RobotState
from vla_policy_node.serving import run_node, serve_until_signal
from vla_policy_node.teleop_devices import device_words, make_device
from vla_policy_node.teleop_screen import TeleopScreen

STATUS_PERIOD_S = 0.5
KEYBOARD_SILENCE_S = 1.0  # a terminal that was put to sleep
SAID_LINES = 4  # how much of what was said is kept for a screen
LAST_WORDS_S = 0.5


class TeleopNode(Node):
    """Wires topics to `Operator`. Raises: VlaError for a contract, mapping or parameter that cannot be used."""

    def __init__(self) -> None:
        super().__init__("teleop_node")
        contract = str(self.declare_parameter("contract", "").value)
        device = choose(Device, "parameter 'device'", self.declare_parameter("device", Device.JOY.value).value)
        mapping = str(self.declare_parameter("mapping", "").value)
        pace = choose(Pace, "parameter 'pace'", self.declare_parameter("pace", Pace.REALTIME.value).value)
        self.declare_parameter("instruction", "")
        self.declare_parameter("operator", "")
        any_number = ParameterDescriptor(dynamic_typing=True)
        reach_s = _seconds("reach_s", self.declare_parameter("reach_s", REACH_S, any_number).value)
        if pace is Pace.LOCKSTEP:
            raise ConfigError("pace lockstep: an operator cannot be waited for; start simulator, guard and "
                              "teleoperation with pace:=realtime")
        if not contract:
            raise ConfigError("parameter 'contract': got nothing, expected a robot contract, "
                              "e.g. --ros-args -p contract:=tabletop")
        self.contract = load_contract(find_contract(contract))
        self.mapping = load_mapping(device, find_teleop(mapping or device.value), self.contract)
        self.device = make_device(self, self.mapping, self.contract, self.turn)
        self.operator = self._make_operator(reach_s)
        self.said: deque[str] = deque(maxlen=SAID_LINES)
        self.last: Step | None = None
        self.safety: SafetyStatus | None = None
        self.recording: RecordingStatus | None = None
        self._has_control = False
        self._guard = GuardWatch()
        self._calls = OperatorCalls(self, self._say, self._start_request)
        self._connect()
        self.get_logger().info(f"{device_words(self.mapping)} drives {self.contract.name} while its dead-man switch is "
                               "held")

    def _make_operator(self, reach_s: float) -> Operator:
        leader = self.mapping.engage_within_rad if isinstance(self.mapping, LeaderMapping) else None
        by_keys = isinstance(self.mapping, KeyboardMapping)
        # Policies count milliseconds, operators microseconds: no two runs bear one number, a restart reuses none.
        return Operator(self.contract, make_planner(self.contract, leader), device=device_words(self.mapping),
                        silence_s=KEYBOARD_SILENCE_S if by_keys else self.mapping.silence_s, reach_s=reach_s,
                        first_run_id=time.time_ns() // 1000, switch="a key" if by_keys else "the dead-man switch")

    def _connect(self) -> None:
        self._chunks = self.create_publisher(ActionChunk, OPERATOR_TOPIC, RELIABLE)
        self._statuses = self.create_publisher(TeleopStatus, TELEOP_STATUS_TOPIC, LATCHED)
        self.create_subscription(SafetyStatus, "/vla/safety", self._on_safety, LATCHED)
        self.create_subscription(Bool, INTERVENTION_TOPIC, self._on_intervention, LATCHED)
        self.create_subscription(RobotCommand, COMMAND_TOPIC, self._on_command, LATEST_ONLY)
        self.create_subscription(RecordingStatus, "/vla/recording", self._on_recording, LATCHED)
        self.robot = RobotState(self, self.contract, Pace.REALTIME, self.turn)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self.contract.control_dt_ns / NS_PER_S, self.turn, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._publish_status, clock=steady)

    def shut_down(self) -> None:
        """Let go of the arm, and say so before leaving."""
        self.operator.release()
        self.turn()
        self._chunks.wait_for_all_acked(Duration(seconds=LAST_WORDS_S))

    # ---- inputs ---------------------------------------------------------------------------------------------------

    def _on_safety(self, msg: SafetyStatus) -> None:
        self.safety = msg
        self._guard.hear(msg)
        self.turn()

    def _on_intervention(self, msg: Bool) -> None:
        if self._has_control and not msg.data and self.operator.driving:
            self._say(False, "control was handed back; release the dead-man switch and hold it again to take over")
            self.operator.release()
        self._has_control = msg.data

    def _on_command(self, msg: RobotCommand) -> None:
        if self.contract.action.gripper is not None and msg.names and msg.names[-1] == "gripper":
            self.operator.hear_opening(msg.values[-1])

    def _on_recording(self, msg: RecordingStatus) -> None:
        self.recording = msg

    def _guard_word(self) -> GuardWord:
        fault = self._guard.fault()
        if fault is None and not self._chunks.get_subscription_count():
            fault = f"the guard does not listen on {OPERATOR_TOPIC}; start guard_node with pace:=realtime"
        return GuardWord(fault, self._has_control, self.safety.run_id if self.safety is not None else 0)

    # ---- one turn -------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Hear the device, do what was pressed, and send what follows."""
        self.device.tell(self.operator)
        steady_ns, now_ns = time.monotonic_ns(), self.get_clock().now().nanoseconds
        presses = self.device.take_presses()
        if Press.HAND_BACK in presses:
            self.operator.release()
        step = self.operator.step(now_ns, steady_ns, self.robot.newest, self._guard_word())
        if step.ended_run_id:
            self._chunks.publish(end_of_run_msg(step.ended_run_id, now_ns, self.contract))
        for press in presses:
            self._press(press)
        if step.chunk is not None:
            self._chunks.publish(chunk_to_msg(step.chunk, self.contract))
        for warning in step.warnings:
            self._say(False, warning)
        before, self.last = self.last, step
        if before is None or _word(step) != _word(before):
            self._publish_status()

    def _press(self, press: Press) -> None:
        if press is not Press.GRIPPER:
            self._calls.call(press)
        elif not self.operator.toggle_gripper():
            self._say(False, "gripper: hold the dead-man switch to move it")

    def _start_request(self) -> StartRecording.Request:
        return StartRecording.Request(instruction=str(self.get_parameter("instruction").value),
                                      operator_name=str(self.get_parameter("operator").value))

    # ---- what is told -----------------------------------------------------------------------------------------------

    def _say(self, good: bool, sentence: str) -> None:
        self.said.append(sentence)
        if good:
            self.get_logger().info(sentence)
        else:
            self.get_logger().warning(sentence)

    def _publish_status(self) -> None:
        if self.last is not None:
            now_ns = self.get_clock().now().nanoseconds
            self._statuses.publish(TeleopStatus(
                header=make_header(now_ns, ""), state=int(self.last.state), device=self.mapping.device,
                device_alive=self.last.alive, message=self.last.message))


def _word(step: Step) -> tuple[int, bool, str]:
    return step.state, step.alive, step.message


def _seconds(name: str, value: object) -> float:
    """A parameter's seconds. Raises: ConfigError for what is no number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"parameter '{name}': got {value!r}, expected seconds above 0")
    return float(value)


def main() -> None:
    """Serve until a signal or the quit key; exit code 2 and one line when it cannot start."""
    run_node("teleop_node", TeleopNode, _serve)


def _serve(node: TeleopNode, executor: SingleThreadedExecutor) -> None:
    """Until a signal; with a keyboard on its terminal, where the log would spoil the picture, until it is left."""
    if not isinstance(node.mapping, KeyboardMapping):
        serve_until_signal(executor)
        return
    with Terminal() as terminal:
        screen = TeleopScreen(node, terminal)
        node.get_logger().set_level(LoggingSeverity.FATAL)  # what is said is on the screen
        serve_until_signal(executor, screen.turn)


if __name__ == "__main__":
    main()

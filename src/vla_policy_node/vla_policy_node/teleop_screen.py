"""A terminal's keys to the teleoperation in, what the teleoperation knows as a picture on the terminal out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vla_msgs.msg import RecordingStatus, SafetyStatus

from vla_policy.messages import stamp_to_ns
from vla_policy.teleop.screen import Terminal, View, draw, key_help
from vla_policy.types import NS_PER_S

if TYPE_CHECKING:
    from vla_policy_node.teleop_node import TeleopNode

GUARD_NAMES = {SafetyStatus.IDLE: "idle", SafetyStatus.ACTIVE: "active", SafetyStatus.LIMITING: "limiting",
               SafetyStatus.STOPPED: "STOPPED"}
RECORDER_NAMES = {RecordingStatus.IDLE: "idle", RecordingStatus.RECORDING: "recording",
                  RecordingStatus.FINISHING: "finishing", RecordingStatus.FAILED: "failed"}
_JOINTS_SHOWN = 7


class TeleopScreen:
    """Keys and picture of a teleoperation by keyboard. Call `turn` often."""

    def __init__(self, node: TeleopNode, terminal: Terminal) -> None:
        self._node, self._terminal = node, terminal
        self._reader = node.device.reader
        self._keys = list(key_help(node.mapping, node.contract))
        node.turn()  # so that there is something to draw

    def turn(self) -> bool:
        """Hand the keys over and draw when it is time; True when the operator wants to leave."""
        try:
            keys = self._terminal.keys()
        except EOFError:
            return True
        for key in keys:
            if not self._reader.hear(key, time.monotonic_ns()):
                self._node.said.append(f"key '{key}' does nothing")
        if keys:
            self._node.turn()
        if self._terminal.is_due():
            self._terminal.show(draw(self._view(), self._keys))
        return self._reader.quits

    def _view(self) -> View:
        node, step = self._node, self._node.last
        safety = node.safety
        guard = ("silent", "no guard speaks on /vla/safety") if safety is None else (
            GUARD_NAMES[safety.state], safety.message)
        drives = safety is not None and safety.state in (SafetyStatus.ACTIVE, SafetyStatus.LIMITING)
        return View(robot_name=node.contract.name, speed=self._reader.speed, state=step.state, policy_drives=drives,
                    message=step.message, guard=guard, robot=self._robot(), recorder=self._recorder(),
                    said=tuple(node.said))

    def _robot(self) -> tuple[str, ...]:
        state, node = self._node.robot.newest, self._node
        has_gripper = node.contract.action.gripper is not None
        opening = f"   gripper sent {node.operator.opening:.2f} (0 closed, 1 open)" if has_gripper else ""
        if state is None:
            return (f"not heard{opening}",)
        if state.pose is None:
            angles = " ".join(f"{angle:+.2f}" for angle in state.joints[:_JOINTS_SHOWN])
            return f"joints {angles} rad{opening}",
        x, y, z = state.pose.position
        return f"x {x:+.3f}  y {y:+.3f}  z {z:+.3f} m{opening}",

    def _recorder(self) -> tuple[str, str]:
        status = self._node.recording
        if status is None:
            return "silent", "no recorder speaks on /vla/recording"
        name = RECORDER_NAMES[status.state]
        if status.state != RecordingStatus.RECORDING:
            return name, status.message or f"{status.episodes} episodes kept"
        seconds = stamp_to_ns(status.elapsed) / NS_PER_S
        return name, (f"{seconds:.0f} s, {status.messages} messages, {status.dropped} dropped: "
                      f"{status.instruction} {status.message}")

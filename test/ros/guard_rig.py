"""A contract in; a stand-in for its robot and policy on real topics, and what the guard sent them, out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from vla_msgs.msg import ActionChunk as ActionChunkMsg
from vla_msgs.msg import RobotCommand, SafetyStatus

from vla_policy.contract import RobotContract, load_contract
from vla_policy.types import ActionChunk, Pose
from vla_policy_node import messages
from vla_policy_node.pace import LATCHED, RELIABLE
from vla_policy_node.robot_output import MESSAGES

ROBOTS = Path(__file__).resolve().parents[2] / "config" / "robots"
DEADLINE_S = 30.0  # generous: a loaded machine is no fault of the guard
SETTLE_TICKS = 10


def relaxed_contract(robot: str, folder: Path, **watchdog: float) -> Path:
    """A shipped contract whose watchdog forgives a loaded machine, written into `folder`."""
    data = yaml.safe_load((ROBOTS / f"{robot}.yaml").read_text())
    data["watchdog"] = {"silence_s": 5.0, "state_max_age_s": 5.0, "clock_jump_s": 5.0, **watchdog}
    path = folder / f"{robot}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def guard_command(contract: Path, *parameters: str) -> list[str]:
    """The command line of a guard process."""
    options = [word for parameter in (f"contract:={contract}", *parameters) for word in ("-p", parameter)]
    return [sys.executable, "-m", "vla_policy_node.guard_node", "--ros-args", *options]


class GuardRig:
    """Publishes the robot's state at 50 Hz while `feeding`, sends chunks, and keeps what the guard publishes."""

    def __init__(self, contract_path: Path, position: tuple[float, float, float]) -> None:
        self.contract: RobotContract = load_contract(contract_path)
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("rig", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.pose = Pose(np.array(position), np.array([0.0, 0.0, 0.0, 1.0]))
        self.joints = np.zeros(len(self.contract.joints.names))
        self.feeding, self.ticks = True, 0
        self.arm: list[Any] = []
        self.gripper: list[Any] = []
        self.raw: list[RobotCommand] = []
        self.sent: list[RobotCommand] = []
        self.safety: list[SafetyStatus] = []
        self.diagnostics: list[DiagnosticArray] = []
        self._connect()
        self.node.create_timer(0.02, self._feed)

    def _connect(self) -> None:
        contract, node, action = self.contract, self.node, self.contract.action
        self._joints = node.create_publisher(JointState, contract.joints.topic, RELIABLE)
        self._pose = node.create_publisher(PoseStamped, contract.pose.topic, RELIABLE) if contract.pose else None
        self._chunks = node.create_publisher(ActionChunkMsg, "/vla/action_chunk", RELIABLE)
        self._estop = node.create_publisher(Bool, "/vla/estop", RELIABLE)
        self._reset = node.create_client(Trigger, "/vla/safety/reset")
        self._set_estop = node.create_client(SetBool, "/vla/set_estop")
        node.create_subscription(MESSAGES[action.command.type], action.command.topic, self.arm.append, RELIABLE)
        if action.gripper:
            node.create_subscription(MESSAGES[action.gripper.type], action.gripper.topic, self.gripper.append, RELIABLE)
        node.create_subscription(RobotCommand, "/vla/command_raw", self.raw.append, RELIABLE)
        node.create_subscription(RobotCommand, "/vla/command", self.sent.append, RELIABLE)
        node.create_subscription(SafetyStatus, "/vla/safety", self.safety.append, LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, RELIABLE)

    # ---- time ---------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """ROS time, as a robot's driver stamps it."""
        return self.node.get_clock().now().nanoseconds

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Serve topics until `condition` holds; AssertionError with the last status when it never does."""
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, f"no {what} within {DEADLINE_S} s; last status: {self.safety[-1:]}"
            self._executor.spin_once(timeout_sec=0.05)

    def connect(self) -> None:
        """Wait for the guard: every topic matched both ways and the robot's state at its end."""
        publishers = [self._joints, self._chunks, self._estop] + ([self._pose] if self._pose else [])
        topics = [self.contract.action.command.topic, "/vla/command", "/vla/command_raw"]
        self.until(lambda: all(publisher.get_subscription_count() for publisher in publishers)
                   and all(self.node.count_publishers(topic) for topic in topics)
                   and self._reset.service_is_ready() and self._set_estop.service_is_ready(), "guard")
        settled = self.ticks + SETTLE_TICKS
        self.until(lambda: self.safety and (self.ticks >= settled or not self.feeding), "first status")

    # ---- the robot and the policy -------------------------------------------------------------------------------

    def _feed(self) -> None:
        if self.feeding:
            self.feed(self.now_ns())
            self.ticks += 1

    def feed(self, stamp_ns: int) -> None:
        """Publish the robot's state, the joints in another order than the contract's, as drivers do."""
        names = self.contract.joints.names
        self._joints.publish(messages.array_to_joint_state(self.joints[::-1], names[::-1], stamp_ns))
        if self._pose is not None:
            self._pose.publish(messages.pose_to_msg(self.pose, stamp_ns, self.contract.base_frame))

    def chunk_message(self, row: Any, run_id: int, rows: int = 80, stamp_ns: int | None = None,
                      execute_rows: int = 4) -> ActionChunkMsg:
        """A chunk of one row over and over, computed from an observation of now."""
        values = np.tile(np.array(row, dtype=np.float64), (rows, 1))
        stamp_ns = self.now_ns() if stamp_ns is None else stamp_ns
        chunk = ActionChunk(stamp_ns, self.contract.action_dt_ns, values, execute_rows, run_id)
        return messages.chunk_to_msg(chunk, self.contract)

    def send_chunk(self, row: Any, run_id: int, **details: Any) -> ActionChunkMsg:
        """Publish a chunk and return it."""
        msg = self.chunk_message(row, run_id, **details)
        self.publish_chunk(msg)
        return msg

    def publish_chunk(self, msg: ActionChunkMsg) -> None:
        """Publish a chunk message as it is."""
        self._chunks.publish(msg)

    def press(self, pressed: bool) -> None:
        """Publish on the e-stop topic."""
        self._estop.publish(Bool(data=pressed))

    def reset(self) -> Trigger.Response:
        """Call /vla/safety/reset."""
        return self._call(self._reset, Trigger.Request())

    def set_estop(self, pressed: bool) -> SetBool.Response:
        """Call /vla/set_estop."""
        return self._call(self._set_estop, SetBool.Request(data=pressed))

    def _call(self, client: Any, request: Any) -> Any:
        answer = client.call_async(request)
        self.until(answer.done, "answer")
        return answer.result()

    # ---- what the guard did -------------------------------------------------------------------------------------

    def until_state(self, state: int, reason: int = SafetyStatus.NONE) -> SafetyStatus:
        """Wait until the newest status has this state and reason, and return it."""
        self.until(lambda: self.safety and (self.safety[-1].state, self.safety[-1].reason) == (state, reason),
                   f"state {state} with reason {reason}")
        return self.safety[-1]

    def until_said(self, words: str) -> SafetyStatus:
        """Wait until the guard's newest sentence holds these words, and return that status."""
        self.until(lambda: self.safety and words in self.safety[-1].message, f"'{words}'")
        return self.safety[-1]

    def until_driven(self, run_id: int) -> RobotCommand:
        """Wait for the first command that serves a run, and return it."""
        self.until(lambda: any(msg.run_id == run_id for msg in self.sent), f"command of run {run_id}")
        return next(msg for msg in self.sent if msg.run_id == run_id)

    def until_fresh_twists(self, count: int = 3) -> list[np.ndarray]:
        """The next `count` twists, (6,) each."""
        seen = len(self.arm)
        self.until(lambda: len(self.arm) >= seen + count, "twist")
        return [twist_values(msg) for msg in self.arm[seen:]]

    def close(self) -> None:
        """Leave the ROS graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def twist_values(msg: Any) -> np.ndarray:
    """(6,) of a TwistStamped, m/s and rad/s."""
    linear, angular = msg.twist.linear, msg.twist.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])

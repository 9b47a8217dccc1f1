"""The robot's own command topics in, Commands out: what a driver does, done for a simulator."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.node import Node
from vla_msgs.msg import GripperCommand

from vla_policy.contract import RobotContract
from vla_policy.errors import ContractError
from vla_policy.messages import stamp_to_ns
from vla_policy.types import NS_PER_S, Command
from vla_policy_node.pace import RELIABLE

ArmMessage = TwistStamped | PoseStamped
ARM_TYPES: dict[str, type[ArmMessage]] = {
    "geometry_msgs/msg/TwistStamped": TwistStamped, "geometry_msgs/msg/PoseStamped": PoseStamped}
GRIPPER_TYPE = "vla_msgs/msg/GripperCommand"


class CommandIntake:
    """Pairs arm and gripper messages by their stamp. `wake` is set whenever one arrives.

    Raises: ContractError for command types that carry no stamp or that no simulator here understands.
    """

    def __init__(self, node: Node, contract: RobotContract, wake: threading.Event) -> None:
        arm, gripper = contract.action.command, contract.action.gripper
        if arm.type not in ARM_TYPES or (gripper is not None and gripper.type != GRIPPER_TYPE):
            raise ContractError(f"{contract.name}: got arm commands of {arm.type} and gripper commands of "
                                f"{gripper.type if gripper else 'none'}; the simulator node takes "
                                f"{' or '.join(ARM_TYPES)} and {GRIPPER_TYPE}")
        self._frame = contract.base_frame
        self._has_gripper = gripper is not None
        self._wake = wake
        self._lock = threading.Lock()
        self._arm: ArmMessage | None = None
        self._gripper: GripperCommand | None = None
        self._arrived_ns = 0
        self._node = node
        node.create_subscription(ARM_TYPES[arm.type], arm.topic, self._on_arm, RELIABLE)
        if gripper is not None:
            node.create_subscription(GripperCommand, gripper.topic, self._on_gripper, RELIABLE)

    def at(self, stamp_ns: int) -> Command | None:
        """The command stamped exactly `stamp_ns`, once all its messages are there."""
        command = self.newest()
        return command if command is not None and command.stamp_ns == stamp_ns else None

    def newest(self, now_ns: int = 0, max_age_s: float = 0.0) -> Command | None:
        """The newest command whose messages are all there.

        None once it arrived longer ago than `max_age_s` (0: never).
        """
        with self._lock:
            arm, gripper, arrived_ns = self._arm, self._gripper, self._arrived_ns
        if arm is None or (self._has_gripper and (gripper is None or gripper.header.stamp != arm.header.stamp)):
            return None
        if max_age_s and now_ns - arrived_ns > max_age_s * NS_PER_S:
            return None
        opening = gripper.opening if gripper is not None else None
        return Command(stamp_to_ns(arm.header.stamp), _arm_values(arm), opening)

    def clear(self) -> None:
        """Forget what arrived; the scene it was meant for is gone."""
        with self._lock:
            self._arm = self._gripper = None

    def _on_arm(self, msg: ArmMessage) -> None:
        if msg.header.frame_id != self._frame:
            words = f"arm command in frame '{msg.header.frame_id}', expected '{self._frame}'; ignored"
            self._node.get_logger().error(words, once=True)
            return
        self._store("_arm", msg)

    def _on_gripper(self, msg: GripperCommand) -> None:
        self._store("_gripper", msg)

    def _store(self, slot: str, msg: Any) -> None:
        with self._lock:
            setattr(self, slot, msg)
            self._arrived_ns = self._node.get_clock().now().nanoseconds
        self._wake.set()


def _arm_values(msg: ArmMessage) -> NDArray[np.float64]:
    """`Command.arm` of a message: a twist (6,) or a pose (7,)."""
    if isinstance(msg, TwistStamped):
        parts = msg.twist.linear, msg.twist.angular
        return np.array([value for part in parts for value in (part.x, part.y, part.z)])
    position, turn = msg.pose.position, msg.pose.orientation
    return np.array([position.x, position.y, position.z, turn.x, turn.y, turn.z, turn.w])

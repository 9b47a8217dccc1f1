"""Commands in, the messages of the robot's own command topics out: what a contract's `action` section names."""

from __future__ import annotations

from array import array
from typing import Any

from geometry_msgs.msg import Point, PoseStamped, Quaternion, TwistStamped, Vector3
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from vla_msgs.msg import GripperCommand

from vla_policy.contract import Gripper, RobotContract
from vla_policy.types import Command
from vla_policy_node.messages import make_header, ns_to_duration
from vla_policy_node.pace import RELIABLE

MESSAGES = {"geometry_msgs/msg/TwistStamped": TwistStamped, "geometry_msgs/msg/PoseStamped": PoseStamped,
            "trajectory_msgs/msg/JointTrajectory": JointTrajectory, "std_msgs/msg/Float64MultiArray": Float64MultiArray,
            "vla_msgs/msg/GripperCommand": GripperCommand}


class RobotOutput:
    """Publishers for the arm and, where there is one, the gripper of a contract."""

    def __init__(self, node: Node, contract: RobotContract) -> None:
        self._contract = contract
        arm, gripper = contract.action.command, contract.action.gripper
        self._arm = node.create_publisher(MESSAGES[arm.type], arm.topic, RELIABLE)
        self._gripper = node.create_publisher(MESSAGES[gripper.type], gripper.topic, RELIABLE) if gripper else None

    def send(self, command: Command) -> None:
        """Publish a command; without a gripper value the gripper is left as it is."""
        self._arm.publish(arm_message(command, self._contract))
        gripper = self._contract.action.gripper
        if gripper is not None and command.gripper is not None:
            self._gripper.publish(gripper_message(command.gripper, command.stamp_ns, gripper))

    def flush(self, timeout_s: float) -> None:
        """Wait until the drivers have what was sent."""
        self._arm.wait_for_all_acked(Duration(seconds=timeout_s))


def arm_message(command: Command, contract: RobotContract) -> Any:
    """A command as the contract's arm message."""
    values = [float(value) for value in command.arm]
    header = make_header(command.stamp_ns, contract.base_frame)
    kind = contract.action.command.type
    if kind == "geometry_msgs/msg/TwistStamped":
        msg = TwistStamped(header=header)
        msg.twist.linear, msg.twist.angular = _xyz(Vector3, values[:3]), _xyz(Vector3, values[3:])
        return msg
    if kind == "geometry_msgs/msg/PoseStamped":
        msg = PoseStamped(header=header)
        msg.pose.position = _xyz(Point, values[:3])
        msg.pose.orientation = Quaternion(x=values[3], y=values[4], z=values[5], w=values[6])
        return msg
    if kind == "trajectory_msgs/msg/JointTrajectory":
        # A zero stamp means "from now on"; joint_trajectory_controller drops points whose time has passed.
        point = JointTrajectoryPoint(positions=array("d", values),
                                     time_from_start=ns_to_duration(contract.control_dt_ns))
        return JointTrajectory(joint_names=list(contract.action.joints), points=[point])
    return Float64MultiArray(data=array("d", values))


def gripper_message(opening: float, stamp_ns: int, gripper: Gripper) -> Any:
    """An opening, 0 closed .. 1 open, as the contract's gripper message."""
    if gripper.type == "vla_msgs/msg/GripperCommand":
        return GripperCommand(header=make_header(stamp_ns, ""), opening=opening, max_effort=gripper.max_effort_n)
    target = gripper.closed_at + opening * (gripper.open_at - gripper.closed_at)
    return Float64MultiArray(data=array("d", [target]))


def _xyz(kind: type, values: list[float]) -> Any:
    return kind(x=values[0], y=values[1], z=values[2])

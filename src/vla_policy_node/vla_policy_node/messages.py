"""The library's numpy types in, ROS messages out. The way back needs no ROS: `vla_policy.messages`."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header
from vla_msgs.msg import ActionChunk as ActionChunkMsg
from vla_msgs.msg import RobotCommand

from vla_policy.contract import RobotContract
from vla_policy.messages import chunk_frame
from vla_policy.types import NS_PER_S, ActionChunk, Command, Pose


def ns_to_stamp(stamp_ns: int) -> Time:
    """Nanoseconds as a Time message, exactly."""
    return Time(sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S)


def ns_to_duration(duration_ns: int) -> Duration:
    """Nanoseconds as a Duration message, exactly; a negative one borrows from `sec`, as ROS does."""
    return Duration(sec=duration_ns // NS_PER_S, nanosec=duration_ns % NS_PER_S)


def make_header(stamp_ns: int, frame_id: str) -> Header:
    """A header for the instant `stamp_ns` and the frame `frame_id`."""
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)


def array_to_image(image: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Image:
    """An RGB array, uint8 (H, W, 3), as an rgb8 message without row padding."""
    height, width = image.shape[:2]
    return Image(header=make_header(stamp_ns, frame_id), height=height, width=width, encoding="rgb8",
                 step=3 * width, data=_to_array("B", image))


def array_to_joint_state(joints: NDArray[np.float64], names: Sequence[str], stamp_ns: int) -> JointState:
    """Positions, float64 (J,), rad or m, of the joints `names`."""
    return JointState(header=make_header(stamp_ns, ""), name=list(names), position=_to_array("d", joints))


def pose_to_msg(pose: Pose, stamp_ns: int, frame_id: str) -> PoseStamped:
    """A pose in the frame `frame_id`."""
    msg = PoseStamped(header=make_header(stamp_ns, frame_id))
    p, q = msg.pose.position, msg.pose.orientation
    p.x, p.y, p.z = map(float, pose.position)
    q.x, q.y, q.z, q.w = map(float, pose.quaternion)
    return msg


def chunk_to_msg(chunk: ActionChunk, contract: RobotContract) -> ActionChunkMsg:
    """A chunk with the contract's names, units and frame written on it."""
    return ActionChunkMsg(header=make_header(chunk.stamp_ns, chunk_frame(contract)), run_id=chunk.run_id,
                          dt=ns_to_duration(chunk.dt_ns), execute_rows=chunk.execute_rows,
                          names=list(contract.action_names), units=list(contract.action_units),
                          values=_to_array("d", chunk.values))


def end_of_run_msg(run_id: int, stamp_ns: int, contract: RobotContract) -> ActionChunkMsg:
    """The empty chunk that tells the guard that run `run_id` is over."""
    return ActionChunkMsg(header=make_header(stamp_ns, chunk_frame(contract)), run_id=run_id, end_of_run=True)


def command_to_msg(command: Command, contract: RobotContract, run_id: int, observation_stamp_ns: int,
                   row: int) -> RobotCommand:
    """A command with the contract's names, units and frame, and the run, observation and row it came from.

    A command that leaves the gripper as it is has no value for it.
    """
    values = np.append(command.arm, [] if command.gripper is None else [command.gripper])
    count = len(values)
    return RobotCommand(header=make_header(command.stamp_ns, chunk_frame(contract)), run_id=run_id,
                        observation_stamp=ns_to_stamp(observation_stamp_ns), row=row,
                        names=list(contract.command_names[:count]),
                        units=list(contract.command_units[:count]), values=_to_array("d", values))


def _to_array(typecode: str, values: NDArray) -> array:
    """The values in row-major order. rclpy takes an array.array unchecked, others element by element."""
    field = array(typecode)
    field.frombytes(memoryview(np.ascontiguousarray(values, typecode)).cast("B"))
    return field

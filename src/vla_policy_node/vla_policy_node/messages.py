"""ROS messages in, the library's numpy types out, and back. Pure functions: no node, no topic, no clock."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header
from vla_msgs.msg import ActionChunk as ActionChunkMsg
from vla_msgs.msg import RobotCommand

from vla_policy.contract import ActionKind, Camera, RobotContract
from vla_policy.errors import ContractError, ObservationError
from vla_policy.observation.images import check_camera, decode_compressed, decode_image
from vla_policy.types import NS_PER_S, ActionChunk, Command, Pose

_UNIT_LENGTH_TOLERANCE = 1e-3


def stamp_to_ns(stamp: Time | Duration) -> int:
    """A Time or Duration message as integer nanoseconds."""
    return stamp.sec * NS_PER_S + stamp.nanosec


def ns_to_stamp(stamp_ns: int) -> Time:
    """Nanoseconds as a Time message, exactly."""
    return Time(sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S)


def ns_to_duration(duration_ns: int) -> Duration:
    """Nanoseconds as a Duration message, exactly; a negative one borrows from `sec`, as ROS does."""
    return Duration(sec=duration_ns // NS_PER_S, nanosec=duration_ns % NS_PER_S)


def make_header(stamp_ns: int, frame_id: str) -> Header:
    """A header for the instant `stamp_ns` and the frame `frame_id`."""
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)


def image_to_array(msg: Image | CompressedImage, camera: Camera) -> NDArray[np.uint8]:
    """A camera message as RGB, uint8 (camera.height, camera.width, 3); may share memory with the message.

    Raises: ObservationError naming the topic: another size or encoding than the contract's, or broken bytes.
    """
    try:
        if isinstance(msg, CompressedImage):
            image = decode_compressed(msg.data)
            check_camera(camera, image.shape[1], image.shape[0], None)
            return image
        check_camera(camera, msg.width, msg.height, msg.encoding)
        return decode_image(msg.encoding, msg.height, msg.width, msg.step, msg.data)
    except ObservationError as problem:
        text = str(problem)
        raise ObservationError(text if text.startswith(camera.topic) else f"{camera.topic}: {text}") from None


def array_to_image(image: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Image:
    """An RGB array, uint8 (H, W, 3), as an rgb8 message without row padding."""
    height, width = image.shape[:2]
    return Image(header=make_header(stamp_ns, frame_id), height=height, width=width, encoding="rgb8",
                 step=3 * width, data=_to_array("B", image))


def joint_state_to_array(msg: JointState, names: Sequence[str], topic: str) -> NDArray[np.float64]:
    """Positions of the joints `names`, float64 (J,), rad or m, whatever order the driver sends them in.

    Raises: ObservationError naming the topic and the joints that are missing or not finite.
    """
    if len(msg.position) != len(msg.name):
        raise ObservationError(f"{topic}: got {len(msg.position)} positions for {len(msg.name)} joint names, "
                               "expected as many; the driver must send positions")
    positions = dict(zip(msg.name, msg.position, strict=True))
    missing = [name for name in names if name not in positions]
    if missing:
        raise ObservationError(f"{topic}: joints {', '.join(missing)} are missing; got "
                               f"{', '.join(msg.name) or 'none'}; correct joints.names or the driver")
    joints = np.array([positions[name] for name in names], dtype=np.float64)
    if not np.isfinite(joints).all():
        broken = [f"{name} = {positions[name]}" for name in names if not np.isfinite(positions[name])]
        raise ObservationError(f"{topic}: got {', '.join(broken)}, expected finite positions; "
                               "check the driver")
    return joints


def array_to_joint_state(joints: NDArray[np.float64], names: Sequence[str], stamp_ns: int) -> JointState:
    """Positions, float64 (J,), rad or m, of the joints `names`."""
    return JointState(header=make_header(stamp_ns, ""), name=list(names), position=_to_array("d", joints))


def pose_to_pose(msg: PoseStamped, base_frame: str, topic: str) -> Pose:
    """The tool pose in the base frame, values unchanged.

    Raises: ObservationError naming the topic: another frame, values not finite, a quaternion not of length 1.
    """
    if msg.header.frame_id != base_frame:
        raise ObservationError(f"{topic}: got a pose in frame '{msg.header.frame_id}', expected "
                               f"'{base_frame}', the contract's base_frame; correct one of the two")
    p, q = msg.pose.position, msg.pose.orientation
    position, quaternion = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])
    length = float(np.linalg.norm(quaternion))
    if not np.isfinite(position).all() or not abs(length - 1.0) <= _UNIT_LENGTH_TOLERANCE:
        raise ObservationError(f"{topic}: got position {position.tolist()}, quaternion {quaternion.tolist()} "
                               f"of length {length:.4g}; expected finite values, length 1; check the driver")
    return Pose(position, quaternion)


def pose_to_msg(pose: Pose, stamp_ns: int, frame_id: str) -> PoseStamped:
    """A pose in the frame `frame_id`."""
    msg = PoseStamped(header=make_header(stamp_ns, frame_id))
    p, q = msg.pose.position, msg.pose.orientation
    p.x, p.y, p.z = map(float, pose.position)
    q.x, q.y, q.z, q.w = map(float, pose.quaternion)
    return msg


def chunk_frame(contract: RobotContract) -> str:
    """Frame of a chunk's and a command's arm values: the base frame, or '' for joint values."""
    return "" if contract.action.kind is ActionKind.JOINT_POSITION else contract.base_frame


def chunk_to_msg(chunk: ActionChunk, contract: RobotContract) -> ActionChunkMsg:
    """A chunk with the contract's names, units and frame written on it."""
    return ActionChunkMsg(header=make_header(chunk.stamp_ns, chunk_frame(contract)), run_id=chunk.run_id,
                          dt=ns_to_duration(chunk.dt_ns), execute_rows=chunk.execute_rows,
                          names=list(contract.action_names), units=list(contract.action_units),
                          values=_to_array("d", chunk.values))


def end_of_run_msg(run_id: int, stamp_ns: int, contract: RobotContract) -> ActionChunkMsg:
    """The empty chunk that tells the guard that run `run_id` is over."""
    return ActionChunkMsg(header=make_header(stamp_ns, chunk_frame(contract)), run_id=run_id, end_of_run=True)


def chunk_from_msg(msg: ActionChunkMsg, contract: RobotContract) -> ActionChunk:
    """A chunk message that is not `end_of_run`. Its values may be NaN or unsafe: the guard judges those.

    Raises: ContractError when names, units, frame, row time or shape differ from the contract's.
    """
    _expect("names", list(msg.names), list(contract.action_names))
    _expect("units", list(msg.units), list(contract.action_units))
    _expect("header.frame_id", msg.header.frame_id, chunk_frame(contract))
    _expect("dt [ns]", stamp_to_ns(msg.dt), contract.action_dt_ns)
    columns = len(contract.action_names)
    rows, rest = divmod(len(msg.values), columns)
    if rest or not rows:
        raise ContractError(f"action chunk: values: got {len(msg.values)}, expected whole rows of {columns}, "
                            "at least one")
    if not 1 <= msg.execute_rows <= rows:
        raise ContractError(f"action chunk: execute_rows: got {msg.execute_rows}, expected 1 to {rows}, "
                            "the rows it has")
    if msg.run_id < 1:
        raise ContractError(f"action chunk: run_id: got {msg.run_id}, expected 1 or more")
    values = np.array(msg.values, dtype=np.float64).reshape(rows, columns)
    return ActionChunk(stamp_to_ns(msg.header.stamp), stamp_to_ns(msg.dt), values, msg.execute_rows,
                       msg.run_id)


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


def command_from_msg(msg: RobotCommand, contract: RobotContract) -> Command:
    """The command inside a RobotCommand. Raises: ContractError when names, units, frame or count differ."""
    moves_gripper = contract.action.gripper is not None and "gripper" in msg.names
    count = len(contract.command_names) - (contract.action.gripper is not None and not moves_gripper)
    _expect("names", list(msg.names), list(contract.command_names[:count]), "robot command")
    _expect("units", list(msg.units), list(contract.command_units[:count]), "robot command")
    _expect("header.frame_id", msg.header.frame_id, chunk_frame(contract), "robot command")
    _expect("count of values", len(msg.values), count, "robot command")
    values = np.array(msg.values, dtype=np.float64)
    arm, gripper = (values[:-1], float(values[-1])) if moves_gripper else (values, None)
    return Command(stamp_to_ns(msg.header.stamp), arm, gripper)


def _to_array(typecode: str, values: NDArray) -> array:
    """The values in row-major order. rclpy takes an array.array unchecked, others element by element."""
    field = array(typecode)
    field.frombytes(memoryview(np.ascontiguousarray(values, typecode)).cast("B"))
    return field


def _expect(what: str, got: object, expected: object, message: str = "action chunk") -> None:
    if got != expected:
        raise ContractError(f"{message}: {what}: got {got!r}, expected {expected!r}; start policy and guard "
                            "with one and the same contract")

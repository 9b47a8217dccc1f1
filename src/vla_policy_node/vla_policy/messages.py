"""ROS messages in, the library's numpy types out, whoever made the messages: rclpy or the reader of a bag.

Only attributes are read, so that serving and training share these functions and the library imports no ROS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import ActionKind, Camera, RobotContract
from vla_policy.errors import ContractError, ObservationError
from vla_policy.observation.images import check_camera, decode_compressed, decode_image
from vla_policy.types import NS_PER_S, ActionChunk, Command, Pose

_UNIT_LENGTH_TOLERANCE = 1e-3


def stamp_to_ns(stamp: Any) -> int:
    """A Time or Duration message as integer nanoseconds."""
    return stamp.sec * NS_PER_S + stamp.nanosec


def image_to_array(msg: Any, camera: Camera) -> NDArray[np.uint8]:
    """An Image or CompressedImage as RGB, uint8 (camera.height, camera.width, 3); may share memory with the message.

    Raises: ObservationError naming the topic: another size or encoding than the contract's, or broken bytes.
    """
    try:
        if not hasattr(msg, "encoding"):
            image = decode_compressed(msg.data)
            check_camera(camera, image.shape[1], image.shape[0], None)
            return image
        check_camera(camera, msg.width, msg.height, msg.encoding)
        return decode_image(msg.encoding, msg.height, msg.width, msg.step, msg.data)
    except ObservationError as problem:
        text = str(problem)
        raise ObservationError(text if text.startswith(camera.topic) else f"{camera.topic}: {text}") from None


def joint_state_to_array(msg: Any, names: Sequence[str], topic: str) -> NDArray[np.float64]:
    """A JointState's positions of the joints `names`, float64 (J,), rad or m, whatever order the driver sends them in.

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


def pose_to_pose(msg: Any, base_frame: str, topic: str) -> Pose:
    """A PoseStamped as the tool pose in the base frame, values unchanged.

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


def chunk_frame(contract: RobotContract) -> str:
    """Frame of a chunk's and a command's arm values: the base frame, or '' for joint values."""
    return "" if contract.action.kind is ActionKind.JOINT_POSITION else contract.base_frame


def chunk_from_msg(msg: Any, contract: RobotContract) -> ActionChunk:
    """An ActionChunk message that is not `end_of_run`. Its values may be NaN or unsafe: the guard judges those.

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


def command_from_msg(msg: Any, contract: RobotContract) -> Command:
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


def _expect(what: str, got: object, expected: object, message: str = "action chunk") -> None:
    if got != expected:
        raise ContractError(f"{message}: {what}: got {got!r}, expected {expected!r}; start policy and guard "
                            "with one and the same contract")

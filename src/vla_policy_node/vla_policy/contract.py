"""A robot's YAML file in, a RobotContract out: what a robot reports, takes, and must never do.

One contract per robot or simulator (config/robots/*.yaml). The robot, its simulator, the recorder, the
trainer, the policy and the guard all read this one file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vla_policy.errors import ContractError, nearest
from vla_policy.strict import StrictModel, load_yaml, parse
from vla_policy.types import seconds_to_ns

ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422", "uyvy", "yuv422_yuy2", "yuyv",
             "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")


def _topic(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z_]\w*)+", text):
        raise ValueError(f"got '{text}', expected an absolute topic name such as /joint_states")
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]\w*", text):
        raise ValueError(f"got '{text}', expected a word of letters, digits and _, beginning with a letter")
    return text


def _increasing(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] < pair[1]:
        raise ValueError(f"got [{pair[0]}, {pair[1]}], an empty range; put the smaller value first")
    return pair


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is named twice; expected each joint once")
    return names


Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]
Word = Annotated[str, AfterValidator(_word)]
Topic = Annotated[str, AfterValidator(_topic)]
Range = Annotated[tuple[float, float], AfterValidator(_increasing)]
JointNames = Annotated[tuple[Name, ...], AfterValidator(_distinct)]


class ActionKind(StrEnum):
    """What one row of an action chunk means."""

    EE_DELTA = "ee_delta"  # change of tool pose within a row: x y z [m], rotation vector [rad], base frame
    EE_POSE = "ee_pose"  # tool pose: x y z [m], rotation vector [rad], base frame
    JOINT_POSITION = "joint_position"  # joint targets [rad or m]


POSE_NAMES = ("x", "y", "z", "rx", "ry", "rz")
POSE_UNITS = ("m", "m", "m", "rad", "rad", "rad")
ARM_COMMAND_TYPES = {
    ActionKind.EE_DELTA: ("geometry_msgs/msg/TwistStamped",),
    ActionKind.EE_POSE: ("geometry_msgs/msg/PoseStamped",),
    ActionKind.JOINT_POSITION: ("trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray"),
}
TOOL_LIMITS = ("linear_velocity_m_s", "linear_acceleration_m_s2", "angular_velocity_rad_s",
               "angular_acceleration_rad_s2")
JOINT_LIMITS = ("joint_position", "joint_velocity", "joint_acceleration")


class Camera(StrictModel):
    """A colour camera. `compressed`: the topic carries sensor_msgs/CompressedImage."""

    topic: Topic
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    encoding: Literal[ENCODINGS] = "rgb8"
    compressed: bool = False
    max_age_s: Positive


class Joints(StrictModel):
    """sensor_msgs/JointState; `names` is the order everything else uses, whatever order the driver sends."""

    topic: Topic
    names: Annotated[JointNames, Field(min_length=1)]
    max_age_s: Positive


class PoseTopic(StrictModel):
    """geometry_msgs/PoseStamped of the tool centre point; header.frame_id is the contract's base_frame."""

    topic: Topic
    max_age_s: Positive


class ArmCommand(StrictModel):
    """Where arm commands go; `type` must fit the action kind."""

    topic: Topic
    type: Literal["geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/PoseStamped",
                  "trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray"]


class Gripper(StrictModel):
    """A gripper as its own channel: the chunk's last column, 0 closed .. 1 open.

    `closed_at`, `open_at`: what a Float64MultiArray driver takes for 0 and 1 [m, rad or fraction].
    """

    topic: Topic
    type: Literal["vla_msgs/msg/GripperCommand",
                  "std_msgs/msg/Float64MultiArray"] = "vla_msgs/msg/GripperCommand"
    closed_at: float = 0.0
    open_at: float = 1.0
    max_effort_n: Annotated[float, Field(ge=0)] = 0.0
    max_speed_per_s: Positive = 10.0


class Action(StrictModel):
    """The action space. `joints`: names of the commanded joints, for joint_position only."""

    kind: ActionKind
    rate_hz: Positive
    joints: JointNames = ()
    command: ArmCommand
    gripper: Gripper | None = None


class Workspace(StrictModel):
    """A box for the tool centre point in the base frame [m]."""

    x: Range
    y: Range
    z: Range


class Limits(StrictModel):
    """What the guard holds every command to.

    Cartesian kinds take the linear and angular limits and the workspace. joint_position takes the joint
    limits, one value per commanded joint, and a workspace where the robot reports a pose. `jump_factor`: a
    command above this multiple of a velocity limit is a fault, not something to reduce.
    """

    linear_velocity_m_s: Positive | None = None
    linear_acceleration_m_s2: Positive | None = None
    angular_velocity_rad_s: Positive | None = None
    angular_acceleration_rad_s2: Positive | None = None
    workspace: Workspace | None = None
    joint_position: tuple[Range, ...] = ()
    joint_velocity: tuple[Positive, ...] = ()
    joint_acceleration: tuple[Positive, ...] = ()
    jump_factor: Annotated[float, Field(ge=1)] = 5.0


class Watchdog(StrictModel):
    """When the guard stops by itself.

    silence_s: no chunk for this long, on the steady clock. state_max_age_s: joints or pose older than this,
    in ROS time. clock_jump_s: ROS time leaps forward by more than this; backward is always a fault.
    """

    silence_s: Positive
    state_max_age_s: Positive
    clock_jump_s: Positive = 1.0


class Stop(StrictModel):
    """How a stop looks to the robot.

    zero_velocity: keep sending a zero twist (ee_delta). hold_position: keep sending where it was when it
    stopped (ee_pose, joint_position). silence: send nothing, for drivers that stop by themselves.
    """

    behaviour: Literal["zero_velocity", "hold_position", "silence"]
    gripper: Literal["keep", "open"] = "keep"


class RobotContract(StrictModel):
    """Everything the stack knows about one robot."""

    name: Word
    description: str = ""
    base_frame: Name
    tool_frame: Name
    control_rate_hz: Positive  # commands a second that the guard sends
    cameras: dict[Word, Camera]
    joints: Joints
    pose: PoseTopic | None = None
    action: Action
    limits: Limits
    watchdog: Watchdog
    stop: Stop

    @property
    def action_names(self) -> tuple[str, ...]:
        """Column names of an action chunk: arm columns, then `gripper` if there is one."""
        arm = self.action.joints if self.action.kind is ActionKind.JOINT_POSITION else POSE_NAMES
        return arm + (("gripper",) if self.action.gripper else ())

    @property
    def action_units(self) -> tuple[str, ...]:
        """Units of the columns of an action chunk."""
        joint = self.action.kind is ActionKind.JOINT_POSITION
        arm = ("rad",) * len(self.action.joints) if joint else POSE_UNITS
        return arm + (("fraction",) if self.action.gripper else ())

    @property
    def command_names(self) -> tuple[str, ...]:
        """Names of the values of a RobotCommand message (arm, then gripper)."""
        gripper = ("gripper",) if self.action.gripper else ()
        if self.action.kind is ActionKind.EE_DELTA:
            return ("vx", "vy", "vz", "wx", "wy", "wz") + gripper
        if self.action.kind is ActionKind.EE_POSE:
            return ("x", "y", "z", "qx", "qy", "qz", "qw") + gripper
        return self.action.joints + gripper

    @property
    def command_units(self) -> tuple[str, ...]:
        """Units of the values of a RobotCommand message."""
        gripper = ("fraction",) if self.action.gripper else ()
        if self.action.kind is ActionKind.EE_DELTA:
            return ("m/s",) * 3 + ("rad/s",) * 3 + gripper
        if self.action.kind is ActionKind.EE_POSE:
            return ("m",) * 3 + ("quaternion",) * 4 + gripper
        return ("rad",) * len(self.action.joints) + gripper

    @property
    def action_dt_ns(self) -> int:
        """Time between two rows of a chunk [ns]."""
        return seconds_to_ns(1.0 / self.action.rate_hz)

    @property
    def control_dt_ns(self) -> int:
        """Time between two commands [ns]."""
        return seconds_to_ns(1.0 / self.control_rate_hz)

    @model_validator(mode="after")
    def _consistent(self) -> RobotContract:
        mistakes = [*_topic_mistakes(self), *_command_mistakes(self), *_limit_mistakes(self)]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


def load_contract(path: Path | str) -> RobotContract:
    """Read config/robots/<name>.yaml. Raises: ContractError naming every mistake."""
    return load_yaml(RobotContract, path, ContractError)


def parse_contract(data: object, where: str) -> RobotContract:
    """Validate a contract that is already a mapping (one stored in a bundle). Raises: ContractError."""
    return parse(RobotContract, data, where, ContractError)


def _topic_mistakes(contract: RobotContract) -> Iterator[str]:
    streams = [*contract.cameras.values(), contract.joints, contract.pose, contract.action.command,
               contract.action.gripper]
    topics = [stream.topic for stream in streams if stream is not None]
    twice = sorted({topic for topic in topics if topics.count(topic) > 1})
    if twice:
        yield f"topic {', '.join(twice)} is used twice; each stream needs its own"


def _command_mistakes(contract: RobotContract) -> Iterator[str]:
    action = contract.action
    allowed = ARM_COMMAND_TYPES[action.kind]
    if action.command.type not in allowed:
        yield (f"action.command.type: got {action.command.type}, expected {' or '.join(allowed)} "
               f"for kind {action.kind}")
    if (action.kind is ActionKind.JOINT_POSITION) != bool(action.joints):
        yield (f"action.joints: got {list(action.joints)}; kind joint_position needs the commanded joints, "
               "other kinds take none")
    for name in action.joints:
        if name not in contract.joints.names:
            yield f"action.joints: '{name}' is not among joints.names; {nearest(name, contract.joints.names)}"
    if action.gripper and action.gripper.closed_at == action.gripper.open_at:
        yield (f"action.gripper: closed_at and open_at are both {action.gripper.open_at}, "
               "expected two positions")
    allowed_stop = ("zero_velocity" if action.kind is ActionKind.EE_DELTA else "hold_position", "silence")
    if contract.stop.behaviour not in allowed_stop:
        yield (f"stop.behaviour: got {contract.stop.behaviour}, expected {' or '.join(allowed_stop)} "
               f"for kind {action.kind}")


def _limit_mistakes(contract: RobotContract) -> Iterator[str]:
    limits, action = contract.limits, contract.action
    joint_space = action.kind is ActionKind.JOINT_POSITION
    for field in TOOL_LIMITS if joint_space else JOINT_LIMITS:
        if getattr(limits, field):
            yield f"limits.{field}: kind {action.kind} cannot keep it; take it out"
    for field in JOINT_LIMITS if joint_space else ():
        count = len(getattr(limits, field))
        if count != len(action.joints):
            yield f"limits.{field}: got {count} values, expected {len(action.joints)}, one per action.joints"
    for field in () if joint_space else (*TOOL_LIMITS, "workspace"):
        if getattr(limits, field) is None:
            yield f"limits.{field} is missing; kind {action.kind} needs it"
    if contract.pose is None and limits.workspace is not None:
        yield "pose is missing; limits.workspace needs the tool pose"

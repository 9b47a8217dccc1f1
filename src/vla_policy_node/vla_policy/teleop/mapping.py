"""config/teleop/<device>.yaml in; which axis, button, key or leader joint does what, validated and frozen, out."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from vla_policy.contract import ActionKind, Name, Positive, RobotContract, Topic
from vla_policy.errors import ConfigError
from vla_policy.strict import StrictModel, load_yaml
from vla_policy.teleop.wish import Press

Share = Annotated[float, Field(gt=0, le=1)]
Index = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

MOTION_NAMES = ("x", "y", "z", "rx", "ry", "rz")  # of Wish.motion for a Cartesian contract
NAMED_KEYS = ("space", "enter", "tab", "escape", "backspace", "up", "down", "left", "right")


class Device(StrEnum):
    """What an operator holds."""

    KEYBOARD = "keyboard"
    JOY = "joy"
    SPACEMOUSE = "spacemouse"
    LEADER = "leader"


def _chord(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else value


def _key(text: str) -> str:
    if len(text) != 1 and text not in NAMED_KEYS:
        raise ValueError(f"got '{text}', expected one character or {', '.join(NAMED_KEYS)}")
    return text


Chord = Annotated[Index | Annotated[tuple[Index, ...], Field(min_length=1)], AfterValidator(_chord)]
Key = Annotated[str, AfterValidator(_key)]


class Axis(StrictModel):
    """An analogue axis, -1 .. 1: nothing within `dead_zone`, beyond it sign * scale * (share of the rest)^response."""

    axis: Index
    sign: Literal[1, -1] = 1
    scale: Share = 1.0
    dead_zone: Annotated[float, Field(ge=0, lt=1)] = 0.1
    response: Positive = 1.0


class GripperAxis(StrictModel):
    """An axis that holds the gripper's opening: the values at which it is closed and open."""

    axis: Index
    closed_at: float
    open_at: float

    @model_validator(mode="after")
    def _two_values(self) -> GripperAxis:
        if self.closed_at == self.open_at:
            raise ValueError(f"closed_at and open_at are both {self.open_at}, expected two values")
        return self


class Speeds(StrictModel):
    """Shares of the contract's speed limits at full deflection: as it is, and while `slow` or `fast` is held."""

    normal: Share = 0.4
    slow: Share = 0.15
    fast: Share = 1.0


class Axes(StrictModel):
    """Where axes come from. Of a twist they are 0..2 linear x y z and 3..5 angular x y z."""

    topic: Topic
    type: Literal["sensor_msgs/msg/Joy", "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"]
    count: Count


class Buttons(StrictModel):
    """A sensor_msgs/Joy with the buttons. repeats: the driver repeats it, so that its silence means something."""

    topic: Topic
    count: Count
    repeats: bool = True


class PadPress(StrictModel):
    """Buttons by number, counted from 0; a list is a chord: all at once. A longer chord hides its single buttons."""

    dead_man: Chord
    slow: Chord | None = None
    fast: Chord | None = None
    gripper: Chord | None = None
    take_over: Chord | None = None
    hand_back: Chord | None = None
    record_start: Chord | None = None
    record_stop: Chord | None = None
    record_success: Chord | None = None
    record_failure: Chord | None = None
    record_discard: Chord | None = None
    estop: Chord | None = None
    reset_guard: Chord | None = None

    @property
    def chords(self) -> dict[str, tuple[int, ...]]:
        """The chords that are mapped, by their names."""
        return {name: chord for name in type(self).model_fields if (chord := getattr(self, name)) is not None}


class Motion(StrictModel):
    """Axes that move the tool in the base frame: along x, y, z and about them."""

    x: Axis | None = None
    y: Axis | None = None
    z: Axis | None = None
    rx: Axis | None = None
    ry: Axis | None = None
    rz: Axis | None = None


class PadMapping(StrictModel):
    """A joystick, gamepad or SpaceMouse. joints: axes that jog the contract's `action.joints`, in that order."""

    device: Literal["joy", "spacemouse"]
    axes: Axes
    buttons: Buttons
    silence_s: Positive = 0.3
    speeds: Speeds = Speeds()
    motion: Motion = Motion()
    joints: tuple[Axis, ...] = ()
    gripper: GripperAxis | None = None
    press: PadPress

    @model_validator(mode="after")
    def _within_counts(self) -> PadMapping:
        mistakes = [*_beyond_axes(self), *_button_mistakes(self.press, self.buttons)]
        if self.gripper and self.press.gripper:
            mistakes.append("gripper and press.gripper: got both, expected an axis or a button")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


class LeaderJoint(StrictModel):
    """Follower = sign * scale * leader + offset_rad. leader: the joint's name in the leader's messages."""

    leader: Name
    sign: Literal[1, -1] = 1
    scale: Positive = 1.0
    offset_rad: float = 0.0


class LeaderGripper(StrictModel):
    """A leader's joint that stands for the gripper: where it is closed and open [rad or m]."""

    leader: Name
    closed_at: float
    open_at: float

    @model_validator(mode="after")
    def _two_values(self) -> LeaderGripper:
        if self.closed_at == self.open_at:
            raise ValueError(f"closed_at and open_at are both {self.open_at}, expected two values")
        return self


class LeaderMapping(StrictModel):
    """A leader arm. joints: by the follower's name. engage_within_rad: how near the two must be before it drives."""

    device: Literal["leader"]
    topic: Topic
    buttons: Buttons
    silence_s: Positive = 0.3
    engage_within_rad: Positive = 0.15
    joints: Annotated[dict[str, LeaderJoint], Field(min_length=1)]
    gripper: LeaderGripper | None = None
    press: PadPress

    @model_validator(mode="after")
    def _within_counts(self) -> LeaderMapping:
        mistakes = list(_button_mistakes(self.press, self.buttons))
        if self.gripper and self.press.gripper:
            mistakes.append("gripper and press.gripper: got both, expected a leader's joint or a button")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


KeyPair = tuple[Key, Key]


class KeyMotion(StrictModel):
    """Pairs of keys that move the tool in the base frame, [forward, backward] along and about each axis."""

    x: KeyPair | None = None
    y: KeyPair | None = None
    z: KeyPair | None = None
    rx: KeyPair | None = None
    ry: KeyPair | None = None
    rz: KeyPair | None = None


class KeyPress(StrictModel):
    """One key each. slow, normal, fast: choose the speed from then on."""

    slow: Key | None = None
    normal: Key | None = None
    fast: Key | None = None
    gripper: Key | None = None
    take_over: Key | None = None
    hand_back: Key | None = None
    record_start: Key | None = None
    record_stop: Key | None = None
    record_success: Key | None = None
    record_failure: Key | None = None
    record_discard: Key | None = None
    estop: Key | None = None
    reset_guard: Key | None = None
    quit: Key | None = None

    @property
    def keys(self) -> dict[str, str]:
        """The keys that are mapped, by the names of what they do."""
        return {name: key for name in type(self).model_fields if (key := getattr(self, name)) is not None}


class KeyboardMapping(StrictModel):
    """Keys of a terminal. act_s: how long a key acts after each press; its repetition is the dead-man switch."""

    device: Literal["keyboard"]
    act_s: Annotated[float, Field(gt=0, le=1)] = 0.25
    speeds: Speeds = Speeds()
    motion: KeyMotion = KeyMotion()
    joints: tuple[KeyPair, ...] = ()
    press: KeyPress

    @model_validator(mode="after")
    def _keys_once(self) -> KeyboardMapping:
        # One contract moves by `motion`, another by `joints`: the two may share keys.
        for name, pairs in (("motion", motion_pairs(self.motion)), ("joints", self.joints)):
            keys = [key for pair in pairs if pair for key in pair] + list(self.press.keys.values())
            twice = sorted({key for key in keys if keys.count(key) > 1})
            if twice:
                raise ValueError(f"{name} and press: got {', '.join(twice)} twice, expected each key once")
        return self


Mapping = PadMapping | LeaderMapping | KeyboardMapping
MODELS: dict[Device, type[Mapping]] = {Device.KEYBOARD: KeyboardMapping, Device.JOY: PadMapping,
                                       Device.SPACEMOUSE: PadMapping, Device.LEADER: LeaderMapping}


def load_mapping(device: Device, path: Path | str, contract: RobotContract) -> Mapping:
    """Read a mapping and hold it to the robot. Raises: ConfigError naming every mistake."""
    mapping = load_yaml(MODELS[device], path, ConfigError)
    mistakes = list(_robot_mistakes(mapping, contract))
    if mapping.device != device:
        mistakes.append(f"device: got {mapping.device}, expected {device}")
    if mistakes:
        raise ConfigError(f"{path}: {'; '.join(mistakes)}")
    return mapping


def motion_pairs(motion: Motion | KeyMotion) -> list[Any]:
    """What is mapped to x y z rx ry rz, None where nothing is."""
    return [getattr(motion, name) for name in MOTION_NAMES]


def press_of(name: str) -> Press | None:
    """The press that a key of `press` stands for; None for the dead-man, the speeds and `quit`."""
    return Press(name) if name in list(Press) else None


def _beyond_axes(mapping: PadMapping) -> Iterator[str]:
    named = [(f"motion.{name}", getattr(mapping.motion, name)) for name in MOTION_NAMES]
    named += [(f"joints.{number}", axis) for number, axis in enumerate(mapping.joints)]
    named.append(("gripper", mapping.gripper))
    for name, axis in named:
        if axis is not None and axis.axis >= mapping.axes.count:
            yield f"{name}.axis: got {axis.axis}, expected 0 .. {mapping.axes.count - 1} (axes.count)"
    if mapping.axes.type != "sensor_msgs/msg/Joy" and mapping.axes.count != len(MOTION_NAMES):
        yield f"axes.count: got {mapping.axes.count}, expected {len(MOTION_NAMES)}, the parts of a twist"


def _button_mistakes(press: PadPress, buttons: Buttons) -> Iterator[str]:
    chords = press.chords
    for name, chord in chords.items():
        if max(chord) >= buttons.count:
            yield f"press.{name}: got button {max(chord)}, expected 0 .. {buttons.count - 1} (buttons.count)"
    seen: dict[frozenset[int], str] = {}
    for name, chord in chords.items():
        other = seen.setdefault(frozenset(chord), name)
        if other != name:
            yield f"press.{name}: got {list(chord)}, the button of {other}; expected another"


def _robot_mistakes(mapping: Mapping, contract: RobotContract) -> Iterator[str]:
    by_joints = contract.action.kind is ActionKind.JOINT_POSITION
    if isinstance(mapping, LeaderMapping):
        if not by_joints:
            yield (f"a leader arm drives joints: got robot {contract.name} of kind {contract.action.kind}, expected "
                   f"{ActionKind.JOINT_POSITION}; choose another device")
        elif set(mapping.joints) != set(contract.action.joints):
            yield (f"joints: got {', '.join(mapping.joints)}, expected {', '.join(contract.action.joints)}, the "
                   f"action.joints of {contract.name}")
        return
    moved = len(mapping.joints) if by_joints else sum(item is not None for item in motion_pairs(mapping.motion))
    if not moved:
        yield (f"{'joints' if by_joints else 'motion'}: got nothing, expected what moves robot {contract.name} of kind "
               f"{contract.action.kind}")

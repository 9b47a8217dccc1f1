"""What a hand wants in, the axes and buttons of a Joy message out: config/teleop/joy.yaml read the other way round."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError
from vla_policy.teleop.mapping import Axis, PadMapping, motion_pairs

FAST = "fast"  # the button that is held for full speed


class Gamepad:
    """Plays a mapping for a robot that is moved by twists.

    Raises: ConfigError for another kind of robot, or a mapping that lacks an axis for translation or a button that is
    needed.
    """

    def __init__(self, mapping: PadMapping, contract: RobotContract) -> None:
        self._mapping, self._chords = mapping, mapping.press.chords
        if contract.action.kind is ActionKind.JOINT_POSITION:
            raise ConfigError(f"gamepad: got robot '{contract.name}' of kind {contract.action.kind}, expected one that "
                              "is moved by the tool")
        self._axes: list[Axis | None] = motion_pairs(mapping.motion)
        needed = ("dead_man", "gripper", "record_start", "record_stop", "record_failure", "reset_guard")
        missing = [name for name in needed if name not in self._chords]
        if missing or None in self._axes[:3]:
            raise ConfigError(f"gamepad: got a mapping without {', '.join(missing) or 'an axis for x, y or z'}; "
                              "expected all that an operator needs, as config/teleop/joy.yaml has")
        limits = contract.limits
        speed = mapping.speeds.fast if FAST in self._chords else mapping.speeds.normal
        self._full_speed = speed * np.repeat([limits.linear_velocity_m_s, limits.angular_velocity_rad_s], 3)

    def axes(self, twist: NDArray[np.float64]) -> list[float]:
        """Deflections that ask for a twist (6,) m/s, rad/s in the base frame; full ones where it is faster than all."""
        values = [0.0] * self._mapping.axes.count
        for axis, share in zip(self._axes, twist / self._full_speed, strict=True):
            if axis is not None and share:
                values[axis.axis] = deflected(axis, float(share))
        return values

    def buttons(self, held: Collection[str]) -> list[int]:
        """The buttons for names of `press`; with the dead-man switch the one for full speed too."""
        names = [*held, *([FAST] if "dead_man" in held and FAST in self._chords else [])]
        down = {button for name in names for button in self._chords[name]}
        return [int(button in down) for button in range(self._mapping.buttons.count)]


def deflected(axis: Axis, share: float) -> float:
    """The value -1 .. 1 of an axis that `vla_policy.teleop.pad.deflection` turns into a share of full speed."""
    strength = min(abs(share) / axis.scale, 1.0) ** (1.0 / axis.response)
    return float(np.copysign(axis.dead_zone + (1.0 - axis.dead_zone) * strength, share)) * axis.sign

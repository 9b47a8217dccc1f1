"""Axes and buttons of a joystick, gamepad or SpaceMouse in, a Wish and what was pressed out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import DeviceError
from vla_policy.teleop.mapping import Axis, Buttons, PadMapping, PadPress, Speeds, motion_pairs, press_of
from vla_policy.teleop.wish import Press, Wish, motion_size


class ButtonReader:
    """The buttons of a device: which are held, and what went down since the last `take_presses`."""

    def __init__(self, press: PadPress, buttons: Buttons) -> None:
        chords = press.chords
        self._held = {name: frozenset(chord) for name, chord in chords.items()}
        self._presses = {press: self._held[name] for name in chords if (press := press_of(name)) is not None}
        self._buttons = buttons
        self._down: frozenset[int] | None = None  # None before the first message: what is down then was not pressed
        self._news: list[Press] = []

    def hear(self, values: Sequence[int]) -> None:
        """Take a message's buttons. Raises: DeviceError when there are more or fewer than the mapping says."""
        if len(values) != self._buttons.count:
            raise DeviceError(wrong_count(self._buttons.topic, "buttons", len(values), self._buttons.count))
        before, self._down = self._down, frozenset(index for index, value in enumerate(values) if value)
        if before is None:
            return
        whole = {press: chord for press, chord in self._presses.items() if chord <= self._down}
        for press, chord in whole.items():
            hidden = any(chord < other for other in whole.values())
            if not hidden and chord & (self._down - before):
                self._news.append(press)

    def holds(self, name: str) -> bool:
        """Whether the buttons of that name are down, whatever else is."""
        return name in self._held and self._down is not None and self._held[name] <= self._down

    def take_presses(self) -> list[Press]:
        """What went down since the last call."""
        news, self._news = self._news, []
        return news


class PadReader:
    """The state of a pad, as its messages tell it."""

    def __init__(self, mapping: PadMapping, contract: RobotContract) -> None:
        self._mapping = mapping
        self._size = motion_size(contract)
        by_joints = contract.action.kind is ActionKind.JOINT_POSITION
        axes: list[Axis | None] = list(mapping.joints if by_joints else motion_pairs(mapping.motion))
        self._motion = axes[:self._size]
        self._values: Sequence[float] | None = None
        self.buttons = ButtonReader(mapping.press, mapping.buttons)

    def hear_axes(self, values: Sequence[float]) -> None:
        """Take a message's axes. Raises: DeviceError for another count than the mapping's, or what is no number."""
        axes = self._mapping.axes
        if len(values) != axes.count:
            raise DeviceError(wrong_count(axes.topic, "axes", len(values), axes.count))
        if not np.isfinite(values).all():
            raise DeviceError(f"{axes.topic}: got {list(values)}, expected numbers; check the driver")
        self._values = values

    def wish(self) -> Wish:
        """What the operator wants now; nothing before the first message."""
        motion = np.zeros(self._size)
        if self._values is None:
            return Wish(False, motion)
        for index, axis in enumerate(self._motion):
            if axis is not None:
                motion[index] = deflection(axis, self._values[axis.axis])
        opening, gripper = None, self._mapping.gripper
        if gripper is not None:
            way = (self._values[gripper.axis] - gripper.closed_at) / (gripper.open_at - gripper.closed_at)
            opening = min(max(way, 0.0), 1.0)
        return Wish(self.buttons.holds("dead_man"), motion * self._speed(), opening=opening)

    def _speed(self) -> float:
        speeds: Speeds = self._mapping.speeds
        if self.buttons.holds("slow"):
            return speeds.slow
        return speeds.fast if self.buttons.holds("fast") else speeds.normal


def deflection(axis: Axis, value: float) -> float:
    """An axis' value as a share -1 .. 1 of full speed; continuous at the edge of the dead zone."""
    beyond = (min(abs(value), 1.0) - axis.dead_zone) / (1.0 - axis.dead_zone)
    if beyond <= 0:
        return 0.0
    return float(np.copysign(axis.scale * beyond ** axis.response, value)) * axis.sign


def wrong_count(topic: str, what: str, got: int, expected: int) -> str:
    """One sentence on a device that is not the one of the mapping."""
    return (f"{topic}: got {got} {what}, expected {expected}; this is another device than that of the mapping, "
            "correct the mapping or choose another")

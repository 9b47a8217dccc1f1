"""Keys and the time they came in, a Wish and what was pressed out. The repetition of a key is the dead-man switch."""

from __future__ import annotations

import numpy as np

from vla_policy.contract import ActionKind, RobotContract
from vla_policy.teleop.mapping import KeyboardMapping, motion_pairs, press_of
from vla_policy.teleop.wish import Press, Wish, motion_size
from vla_policy.types import NS_PER_S, seconds_to_ns


class KeyReader:
    """Which keys act now: each for `act_s` after it came, one that moves the gripper until that has had its time."""

    def __init__(self, mapping: KeyboardMapping, contract: RobotContract) -> None:
        by_joints = contract.action.kind is ActionKind.JOINT_POSITION
        self._size = motion_size(contract)
        pairs = list(mapping.joints if by_joints else motion_pairs(mapping.motion))[:self._size]
        self._moves = {key: (index, sign) for index, pair in enumerate(pairs) if pair
                       for key, sign in zip(pair, (1.0, -1.0), strict=True)}
        self._names = {key: name for name, key in mapping.press.keys.items()}
        self._speeds = mapping.speeds
        self._act_ns = seconds_to_ns(mapping.act_s)
        gripper = contract.action.gripper
        self._gripper_ns = self._act_ns + (round(NS_PER_S / gripper.max_speed_per_s) if gripper else 0)
        self._until_ns: dict[str, int] = {}  # key -> steady time until which it acts
        self._presses: list[Press] = []
        self.speed = "normal"
        self.quits = False

    def hear(self, key: str, steady_ns: int) -> bool:
        """Take a key, as `decode_keys` names it; False: it does nothing."""
        name = self._names.get(key)
        press = press_of(name) if name else None
        if key in self._moves:
            opposite = [other for other, move in self._moves.items() if move[0] == self._moves[key][0]]
            for other in opposite:
                self._until_ns.pop(other, None)
            self._until_ns[key] = steady_ns + self._act_ns
        elif press is not None:
            if press is Press.GRIPPER:
                self._until_ns[key] = steady_ns + self._gripper_ns
            self._presses.append(press)
        elif name in ("slow", "normal", "fast"):
            self.speed = name
        elif name == "quit":
            self.quits = True
        else:
            return False
        return True

    def wish(self, steady_ns: int) -> Wish:
        """What the operator wants now."""
        self._until_ns = {key: until_ns for key, until_ns in self._until_ns.items() if until_ns > steady_ns}
        motion = np.zeros(self._size)
        for key in self._until_ns:
            if key in self._moves:
                index, sign = self._moves[key]
                motion[index] += sign
        return Wish(bool(self._until_ns), motion * getattr(self._speeds, self.speed))

    def take_presses(self) -> list[Press]:
        """What was pressed since the last call."""
        presses, self._presses = self._presses, []
        return presses


_SEQUENCES = {start + end: name for start in (b"\x1b[", b"\x1bO")
              for end, name in ((b"A", "up"), (b"B", "down"), (b"C", "right"), (b"D", "left"))}
_CONTROLS = {b" ": "space", b"\n": "enter", b"\r": "enter", b"\t": "tab", b"\x1b": "escape", b"\x7f": "backspace",
             b"\x08": "backspace"}


def decode_keys(data: bytes) -> list[str]:
    """Bytes of a terminal -> keys, as a mapping names them; what is no key of a mapping is left out."""
    keys, at = [], 0
    while at < len(data):
        sequence = _SEQUENCES.get(data[at:at + 3])
        one = data[at:at + 1]
        if sequence:
            keys.append(sequence)
        elif one in _CONTROLS:
            keys.append(_CONTROLS[one])
        elif 0x20 < one[0] < 0x7f:
            keys.append(one.decode())
        at += 3 if sequence else 1
    return keys

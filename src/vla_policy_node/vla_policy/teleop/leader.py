"""Joint angles of a leader arm and its buttons in, a Wish with joint targets for the follower out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_policy.contract import RobotContract
from vla_policy.errors import DeviceError
from vla_policy.teleop.mapping import LeaderMapping
from vla_policy.teleop.pad import ButtonReader
from vla_policy.teleop.wish import Wish, motion_size


class LeaderReader:
    """The state of a leader arm, as its messages tell it."""

    def __init__(self, mapping: LeaderMapping, contract: RobotContract) -> None:
        self._mapping = mapping
        self._joints = [mapping.joints[name] for name in contract.action.joints]
        self._still = np.zeros(motion_size(contract))
        self._wish = Wish(False, self._still)
        self.buttons = ButtonReader(mapping.press, mapping.buttons)

    def hear_joints(self, names: Sequence[str], positions: Sequence[float]) -> None:
        """Take a message's joints [rad or m]. Raises: DeviceError for a joint that is missing or no number."""
        topic, gripper = self._mapping.topic, self._mapping.gripper
        if len(names) != len(positions):
            raise DeviceError(f"{topic}: got {len(positions)} positions for {len(names)} joints, expected as many")
        at = dict(zip(names, positions, strict=True))
        wanted = [joint.leader for joint in self._joints] + ([gripper.leader] if gripper else [])
        missing = [name for name in wanted if name not in at]
        if missing:
            raise DeviceError(f"{topic}: joints {', '.join(missing)} are missing, got {', '.join(names) or 'none'}; "
                              "correct the mapping's joints or the leader's driver")
        broken = [f"{name} = {at[name]}" for name in wanted if not np.isfinite(at[name])]
        if broken:
            raise DeviceError(f"{topic}: got {', '.join(broken)}, expected numbers; check the leader's driver")
        targets = np.array([joint.sign * joint.scale * at[joint.leader] + joint.offset_rad for joint in self._joints])
        opening = None
        if gripper is not None:
            way = (at[gripper.leader] - gripper.closed_at) / (gripper.open_at - gripper.closed_at)
            opening = min(max(way, 0.0), 1.0)
        self._wish = Wish(False, self._still, targets, opening)

    def wish(self) -> Wish:
        """What the operator wants now; nothing before the first message."""
        dead_man = self.buttons.holds("dead_man") and self._wish.targets is not None
        return Wish(dead_man, self._still, self._wish.targets, self._wish.opening)

"""What an operator wants at one instant, whatever the device. Values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import ActionKind, RobotContract

Vector = NDArray[np.float64]


class Press(StrEnum):
    """What a button or key does once when it goes down; the keys of a mapping's `press`."""

    GRIPPER = "gripper"  # opens or closes, whichever it is not
    TAKE_OVER = "take_over"
    HAND_BACK = "hand_back"
    RECORD_START = "record_start"
    RECORD_STOP = "record_stop"
    RECORD_SUCCESS = "record_success"
    RECORD_FAILURE = "record_failure"
    RECORD_DISCARD = "record_discard"
    ESTOP = "estop"
    RESET_GUARD = "reset_guard"  # releases the emergency stop and ends a latched stop


@dataclass(frozen=True, slots=True)
class Wish:
    """The state of a device.

    dead_man: whether its switch is held. motion: shares -1 .. 1 of the contract's speed limits: x y z rx ry rz in the
    base frame, or one a joint of `action.joints`. targets: joint targets (J,) [rad] of a leader arm, instead of
    `motion`. opening: 0 closed .. 1 open where the device has an axis for it, else None: the gripper stays.
    """

    dead_man: bool
    motion: Vector
    targets: Vector | None = None
    opening: float | None = None


def motion_size(contract: RobotContract) -> int:
    """Length of `Wish.motion` for a contract."""
    return len(contract.action.joints) if contract.action.kind is ActionKind.JOINT_POSITION else 6

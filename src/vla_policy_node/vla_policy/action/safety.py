"""What the guard says: its states, the reasons of a stop, and what it decides for one instant. Values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from vla_policy.types import Command


class GuardState(IntEnum):
    """Numbers of vla_msgs/SafetyStatus.state."""

    IDLE = 0
    ACTIVE = 1
    LIMITING = 2
    STOPPED = 3


class StopReason(IntEnum):
    """Numbers of vla_msgs/SafetyStatus.reason."""

    NONE = 0
    ESTOP = 1
    CHUNK_INVALID = 2
    CHUNK_STALE = 3
    SILENCE = 4
    STATE_STALE = 5
    OUT_OF_BOUNDS = 6
    JUMP = 7
    CLOCK_JUMP = 8


@dataclass(frozen=True, slots=True)
class SafetyState:
    """What the guard does and why. limited: for each of `contract.command_names`, whether it was reduced."""

    state: GuardState
    reason: StopReason
    message: str
    limited: tuple[bool, ...]
    run_id: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to send for one instant.

    raw: what the policy asked for, None where it asked for nothing. sent: what the robot gets, None: nothing.
    run_id: the run that `sent` serves, 0: the guard's own stop or hold. observation_stamp_ns and row: of raw.
    """

    raw: Command | None
    sent: Command | None
    status: SafetyState
    run_id: int = 0
    observation_stamp_ns: int = 0
    row: int = 0

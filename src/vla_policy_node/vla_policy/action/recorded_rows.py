"""Commands that a robot was sent in, rows of the contract's actions out: what a policy says to have the same sent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import rotvec_from_quaternion
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.types import NS_PER_S, Command

HELD_PERIODS = 2  # control periods that a twist lasts when none follows: late ticks are bridged, silence is rest


def driven(commands: Sequence[Command], run_ids: Sequence[int]) -> list[Command]:
    """From the first to the last command that served a run; before and after, the guard only holds. By their stamps."""
    serving = np.flatnonzero(run_ids)
    kept = commands[serving[0]:serving[-1] + 1] if len(serving) else ()
    return sorted(kept, key=lambda command: command.stamp_ns)


def covered(ticks_ns: Sequence[int], commands: Sequence[Command], contract: RobotContract) -> slice:
    """The frames of an episode that have a command: from the first one to the last one that was sent."""
    middle = np.asarray(ticks_ns, np.int64) + contract.action_dt_ns // 2
    if not commands:
        return slice(0, 0)
    last_ns = commands[-1].stamp_ns + contract.control_dt_ns
    return slice(int(np.searchsorted(middle, commands[0].stamp_ns)), int(np.searchsorted(middle, last_ns)))


def action_rows(
    ticks_ns: NDArray[np.int64], commands: Sequence[Command], contract: RobotContract
) -> NDArray[np.float64]:
    """Row of each frame, float64 (T, A), columns as `contract.action_names`; all must be `covered`.

    A row is meant for one action period from the frame on. ee_delta: the twist's integral over it [m, rad]. ee_pose and
    joint_position: what was commanded in its middle. The gripper too; a command without one leaves it as it was.
    """
    stamps_ns = np.array([command.stamp_ns for command in commands], np.int64)
    arms = np.array([command.arm for command in commands])
    current = np.searchsorted(stamps_ns, ticks_ns + contract.action_dt_ns // 2, side="right") - 1
    if contract.action.kind is ActionKind.EE_DELTA:
        rows = _integral(ticks_ns, stamps_ns, arms, contract)
    elif contract.action.kind is ActionKind.EE_POSE:
        rows = np.array([np.append(arm[:3], rotvec_from_quaternion(arm[3:])) for arm in arms[current]])
    else:
        rows = arms[current]
    if contract.action.gripper is None:
        return rows
    return np.column_stack([rows, _openings(commands)[current]])


def _integral(
    ticks_ns: NDArray[np.int64], stamps_ns: NDArray[np.int64], twists: NDArray[np.float64], contract: RobotContract
) -> NDArray[np.float64]:
    """Each twist holds until the next, or for HELD_PERIODS; its integral over an action period from each frame on."""
    ends_ns = stamps_ns + HELD_PERIODS * contract.control_dt_ns
    ends_ns[:-1] = np.minimum(ends_ns[:-1], stamps_ns[1:])
    breaks_ns = np.column_stack([stamps_ns, ends_ns]).ravel()
    moved = twists * ((ends_ns - stamps_ns) / NS_PER_S)[:, None]
    after = np.cumsum(moved, 0)
    along = np.stack([after - moved, after], 1).reshape(len(breaks_ns), -1)
    seconds = (breaks_ns - stamps_ns[0]) / NS_PER_S
    start_s = (ticks_ns - stamps_ns[0]) / NS_PER_S
    end_s = (ticks_ns + contract.action_dt_ns - stamps_ns[0]) / NS_PER_S
    return np.column_stack([np.interp(end_s, seconds, axis) - np.interp(start_s, seconds, axis) for axis in along.T])


def _openings(commands: Sequence[Command]) -> NDArray[np.float64]:
    """The gripper's opening after each command; before the first that names one, that one."""
    openings = np.array([np.nan if command.gripper is None else command.gripper for command in commands])
    known = np.flatnonzero(np.isfinite(openings))
    if not len(known):
        raise ValueError("no command moves the gripper, which the contract has")
    return openings[known[np.maximum(np.searchsorted(known, np.arange(len(openings)), side="right") - 1, 0)]]

"""A chunk or the robot's state in; what is wrong with it, in words, or None, out. The guard asks before it limits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.types import NS_PER_S, ActionChunk, Observation


def chunk_mistake(contract: RobotContract, chunk: ActionChunk) -> str | None:
    """What is wrong with a chunk; None when nothing is."""
    columns = len(contract.action_names)
    if chunk.run_id < 1:
        return f"got run_id {chunk.run_id}, expected at least 1"
    if chunk.values.ndim != 2 or len(chunk.values) < 1 or chunk.values.shape[1] != columns:
        return (f"got values of shape {chunk.values.shape}, expected (rows, {columns}) for "
                f"{', '.join(contract.action_names)}")
    bad = np.argwhere(~np.isfinite(chunk.values))
    if len(bad):
        row, column = bad[0]
        return (f"got {chunk.values[row, column]} in row {row}, column {contract.action_names[column]}, "
                "expected a number")
    if chunk.dt_ns != contract.action_dt_ns:
        return (f"got dt {chunk.dt_ns} ns, expected {contract.action_dt_ns} ns (action.rate_hz "
                f"{contract.action.rate_hz:g})")
    if not 1 <= chunk.execute_rows <= len(chunk.values):
        return f"got execute_rows {chunk.execute_rows}, expected 1 .. {len(chunk.values)}, the rows it has"
    return None


def expected_state(contract: RobotContract) -> str:
    """What a robot of this contract must report, in words."""
    return "joints" + (" and pose" if contract.pose else "")


def is_complete(contract: RobotContract, state: Observation | None) -> bool:
    """Whether every part of the state is there, of whatever age."""
    return state is not None and (contract.pose is None or state.pose is not None)


def is_finite(state: Observation) -> bool:
    """Whether the state holds numbers only."""
    values: list[NDArray[np.float64]] = [state.joints]
    if state.pose is not None:
        values += [state.pose.position, state.pose.quaternion]
    return all(bool(np.isfinite(value).all()) for value in values)


def state_fault(contract: RobotContract, state: Observation | None, now_ns: int) -> str | None:
    """Why nothing can be decided from this state at `now_ns`; None when it is complete, finite and fresh."""
    expected = expected_state(contract)
    if not is_complete(contract, state):
        return f"the robot's state is missing, expected {expected}"
    if not is_finite(state):
        return f"the robot's state is not finite, expected {expected} in numbers"
    age_s = (now_ns - state.stamp_ns) / NS_PER_S
    if abs(age_s) > contract.watchdog.state_max_age_s:
        return (f"the robot's state is {age_s:.2f} s old, expected at most "
                f"{contract.watchdog.state_max_age_s:g} s")
    return None

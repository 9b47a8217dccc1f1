"""The mapped rows of an episode at the data's rate in, rows at the contract's rate out; the motion stays the same.

A rate p/q times the data's: every row is split into p, then row i joins the split rows i to i + q - 1. A chunk takes
every q-th of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import inverse, multiply
from vla_policy.action.rotation_forms import quaternion_from, rotation_as
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import DataError
from vla_policy.model.config import ModelConfig
from vla_training.datasets import conversions

MOST_PARTS = 64  # of a row that is split; more says that a rate is wrong


@dataclass(frozen=True, slots=True)
class Rates:
    """How the frames and rows of a data set lie to those of the contract.

    rows_per_frame: rows that an episode has for each of its frames, after `split`. split, join: p and q. stride:
    frames from one observation of a window to the next, a policy period.
    """

    rows_per_frame: int
    split: int
    join: int
    stride: int


def rates_of(
    where: str, frames_hz: float, rows: int, resample: bool, contract: RobotContract, model: ModelConfig
) -> Rates:
    """rows: action rows that the data has for each frame. Raises: DataError with both rates where they do not fit."""
    rate_hz = contract.action.rate_hz
    ratio = Fraction(rate_hz / (frames_hz * rows)).limit_denominator(MOST_PARTS)
    each = "1 action row" if rows == 1 else f"{rows} action rows"
    told = f"{where}: {frames_hz:g} frames/s with {each} each, contract '{contract.name}' has {rate_hz:g} rows/s"
    if abs(float(ratio) * frames_hz * rows - rate_hz) > 1e-6 * rate_hz or ratio.numerator > MOST_PARTS:
        raise DataError(f"{told}; these are in no ratio of whole numbers up to {MOST_PARTS}")
    if ratio != 1 and not resample:
        raise DataError(f"{told}; set resample: true to join or split rows, or take a contract of that rate")
    stride = Fraction(model.execute_rows * frames_hz / rate_hz).limit_denominator(1000)
    if stride.denominator != 1:
        raise DataError(
            f"{told}; the model looks every {model.execute_rows} rows, which is every {float(stride):g} frames of "
            f"the data, expected a whole number; set execute_rows to a multiple of {stride.denominator}"
        )
    return Rates(rows * ratio.numerator, ratio.numerator, ratio.denominator, int(stride))


def at_contract_rate(actions: NDArray[np.float32], rates: Rates, contract: RobotContract) -> NDArray[np.float32]:
    """actions (T, R, A) of an episode -> (T * rows_per_frame, A). The last `join` - 1 rows are fill: they begin too
    late to be whole.
    """
    rows = actions.reshape(-1, actions.shape[-1]).astype(np.float64)
    if rates.split == rates.join == 1:
        return rows.astype(np.float32)
    arm_size = len(contract.action_names) - (contract.action.gripper is not None)
    arm, gripper = rows[:, :arm_size], np.repeat(rows[:, arm_size:], rates.split, 0)
    resampled = _change_rows if contract.action.kind is ActionKind.EE_DELTA else _target_rows
    arm = resampled(arm, rates, contract.action.kind)
    whole = len(gripper) - rates.join + 1
    if whole < 1:
        return np.zeros((len(gripper), len(contract.action_names)), np.float32)
    out = np.concatenate([arm, gripper[rates.join - 1 :]], -1)
    return out[np.minimum(np.arange(len(gripper)), whole - 1)].astype(np.float32)


def _change_rows(arm: conversions.Array, rates: Rates, kind: ActionKind) -> conversions.Array:
    """Changes of the tool pose (T, 6)."""
    motion = conversions.split_changes(arm[:, :3], quaternion_from("rotation_vector", arm[:, 3:]), rates.split)
    position, quaternion = conversions.join_changes(*motion, rates.join)
    return np.concatenate([position, rotation_as("rotation_vector", quaternion)], -1)


def _target_rows(arm: conversions.Array, rates: Rates, kind: ActionKind) -> conversions.Array:
    """Targets (T, n): split on the straight way (rotations: the shortest) from the target before; joined, the last
    one holds.
    """
    before = np.concatenate([arm[:1], arm[:-1]])
    share = (np.arange(rates.split) + 1.0)[None, :, None] / rates.split
    split = before[:, None] + share * (arm - before)[:, None]
    if kind is ActionKind.EE_POSE:
        start, end = (quaternion_from("rotation_vector", pose[:, 3:]) for pose in (before, arm))
        turn = rotation_as("rotation_vector", multiply(end, inverse(start)))
        part = quaternion_from("rotation_vector", share * turn[:, None])
        here = multiply(part, np.broadcast_to(start[:, None], part.shape))
        split[..., 3:] = rotation_as("rotation_vector", here)
    return split.reshape(-1, arm.shape[1])[rates.join - 1 :]

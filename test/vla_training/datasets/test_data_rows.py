"""Rates that differ from the contract's: refused with both, or joined and split so that the motion stays."""

import numpy as np
import pytest
from fabricated import tabletop

from vla_policy.action.rotation import multiply, quaternion_from_rotvec
from vla_policy.action.rotation_forms import matrix_from
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import DataError
from vla_policy.model.config import ModelConfig
from vla_training.datasets.rows import at_contract_rate, rates_of

MODEL = ModelConfig(image_size=16, execute_rows=4)


def contract_at(rate_hz: float, kind: ActionKind = ActionKind.EE_DELTA) -> RobotContract:
    contract = tabletop()
    return contract.model_copy(update={"action": contract.action.model_copy(update={"rate_hz": rate_hz, "kind": kind})})


def total(rows: np.ndarray) -> np.ndarray:
    turn = np.array([0.0, 0.0, 0.0, 1.0])
    for row in rows:
        turn = multiply(quaternion_from_rotvec(row[3:6]), turn)
    return np.concatenate([rows[:, :3].sum(0), matrix_from(turn).ravel()])


@pytest.mark.parametrize(("frames_hz", "rows"), [(20, 1), (5, 4)])
def test_a_rate_that_fits_is_left_as_it_is(frames_hz: float, rows: int) -> None:
    rates = rates_of("set", frames_hz, rows, False, tabletop(), MODEL)
    actions = np.random.default_rng(0).normal(size=(6, rows, 7)).astype(np.float32)
    assert (rates.split, rates.join, rates.stride, rates.rows_per_frame) == (1, 1, 4 // rows, rows)
    assert np.array_equal(at_contract_rate(actions, rates, tabletop()), actions.reshape(-1, 7))


def test_another_rate_is_refused_with_both_values() -> None:
    with pytest.raises(
        DataError, match=r"set: 30 frames/s with 1 action row each, contract 'tabletop' has 20 rows/s; set"
    ):
        rates_of("set", 30, 1, False, tabletop(), MODEL)
    with pytest.raises(DataError, match="in no ratio of whole numbers"):
        rates_of("set", 19.937, 1, True, tabletop(), MODEL)
    with pytest.raises(DataError, match="every 0.6 frames of the data.*set execute_rows to a multiple of 5"):
        rates_of("set", 3, 1, True, tabletop(), MODEL)


@pytest.mark.parametrize("rate_hz", [10, 20, 30, 60])
def test_changes_at_another_rate_move_as_far(rate_hz: float) -> None:
    contract = contract_at(rate_hz)
    model = MODEL.model_copy(update={"execute_rows": 6})
    rates = rates_of("set", 20, 1, True, contract, model)
    actions = np.random.default_rng(1).normal(0, 0.1, (12, 1, 7)).astype(np.float32)
    actions[..., 6] = np.arange(12)[:, None] % 2
    rows = at_contract_rate(actions, rates, contract)
    assert len(rows) == 12 * rates.rows_per_frame
    chunk = rows[:: rates.join]  # the rows of a chunk that begins with the episode
    assert np.allclose(total(chunk), total(actions[:, 0]), atol=1e-5)
    frame = 4 * rates.rows_per_frame
    assert np.allclose(total(rows[frame :: rates.join]), total(actions[4:, 0]), atol=1e-5)


def test_slower_targets_are_reached_in_equal_steps_faster_ones_at_the_end() -> None:
    targets = np.zeros((3, 1, 7), np.float32)
    targets[:, 0, 0], targets[:, 0, 5] = [0.0, 0.2, 0.4], [0.0, 0.1, 0.3]
    contract = contract_at(40, ActionKind.EE_POSE)
    rows = at_contract_rate(targets, rates_of("set", 20, 1, True, contract, MODEL), contract)
    assert np.allclose(rows[:, 0], [0, 0, 0.1, 0.2, 0.3, 0.4], atol=1e-6)
    assert np.allclose(rows[:, 5], [0, 0, 0.05, 0.1, 0.2, 0.3], atol=1e-6)
    slow = contract_at(10, ActionKind.EE_POSE)
    rows = at_contract_rate(
        targets, rates_of("set", 20, 1, True, slow, MODEL.model_copy(update={"execute_rows": 2})), slow
    )
    assert np.allclose(rows[:, 0], [0.2, 0.4, 0.4])

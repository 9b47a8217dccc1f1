"""Chunks in; out: contract units and back, a gripper with hysteresis, and a refusal of NaN."""

from __future__ import annotations

import numpy as np
import pytest
from policies import tabletop

from vla_policy.action.codec import ActionCodec
from vla_policy.errors import ActionError, BundleError
from vla_policy.normalizer import Normalizer

ARM_NAMES = tabletop().action_names[:6]


@pytest.fixture
def codec() -> ActionCodec:
    values = np.linspace(-0.02, 0.03, 500)[:, None].repeat(6, 1)
    return ActionCodec(tabletop(), Normalizer.fit(values, ARM_NAMES), hysteresis=0.1)


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def test_decode_undoes_encode(codec: ActionCodec) -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(-0.019, 0.029, (8, 6)), rng.integers(0, 2, 8)])
    arm, gripper = codec.encode(rows)
    assert arm.shape == (8, 6) and arm.dtype == np.float32 and gripper.shape == (8,)
    decoded = codec.decode(arm, (gripper - 0.5) * 20, None)
    np.testing.assert_allclose(decoded, rows, atol=1e-7)
    assert decoded.dtype == np.float64


def test_gripper_is_never_unnormalised(codec: ActionCodec) -> None:
    decoded = codec.decode(np.zeros((2, 6)), np.array([9.0, -9.0]), None)
    assert decoded[:, 6].tolist() == [1.0, 0.0]


def test_gripper_keeps_its_state_inside_the_hysteresis(codec: ActionCodec) -> None:
    logits = np.array([logit(p) for p in (0.45, 0.55, 0.61, 0.45, 0.39, 0.55)])
    assert codec.decode(np.zeros((6, 6)), logits, 0.0)[:, 6].tolist() == [0, 0, 1, 1, 0, 0]
    assert codec.decode(np.zeros((6, 6)), logits, 1.0)[:, 6].tolist() == [1, 1, 1, 1, 0, 0]


def test_gripper_without_a_past_goes_by_one_half(codec: ActionCodec) -> None:
    assert codec.decode(np.zeros((1, 6)), np.array([logit(0.55)]), None)[0, 6] == 1.0
    assert codec.decode(np.zeros((1, 6)), np.array([logit(0.45)]), None)[0, 6] == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused_with_its_place(codec: ActionCodec, bad: float) -> None:
    arm = np.zeros((8, 6), np.float32)
    arm[3, 2] = bad
    with pytest.raises(ActionError, match="row 3, column 'z'"):
        codec.decode(arm, np.zeros(8), None)
    with pytest.raises(ActionError, match="row 0, column 'gripper'"):
        codec.decode(np.zeros((1, 6)), np.array([bad]), None)


def test_foreign_normaliser_is_refused() -> None:
    with pytest.raises(BundleError, match="expected the arm columns"):
        ActionCodec(tabletop(), Normalizer.fit(np.zeros((3, 2)), ("a", "b")))


def test_contract_without_a_gripper_has_arm_columns_only() -> None:
    contract = tabletop()
    contract = contract.model_copy(update={"action": contract.action.model_copy(update={"gripper": None})})
    codec = ActionCodec(contract, Normalizer.fit(np.linspace(-1, 1, 9)[:, None].repeat(6, 1), ARM_NAMES))
    arm, gripper = codec.encode(np.zeros((8, 6)))
    assert gripper is None and codec.decode(arm, None, None).shape == (8, 6)

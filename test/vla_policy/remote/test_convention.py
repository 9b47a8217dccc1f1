"""Action rows of other programs, there and back, and formats that do not fit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from vla_policy.contract import load_contract
from vla_policy.errors import RemoteError
from vla_policy.remote.convention import Convention
from vla_policy.resources import find_contract

CONTRACT = load_contract(find_contract("tabletop"))
FORMATS = list(
    product(
        ("axis_angle", "euler_xyz", "quaternion_xyzw"),
        ("continuous_01", "binary_close_01", "binary_close_positive", "binary_close_negative"),
    )
)


@pytest.mark.parametrize(("rotation", "gripper"), FORMATS)
def test_there_and_back(rotation: str, gripper: str) -> None:
    convention = Convention(rotation=rotation, gripper=gripper, position_scale_m=0.02, rotation_scale_rad=0.05)
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(0, 0.01, (5, 6)), rng.uniform(0, 1, (5, 1))], 1)
    theirs = convention.from_contract(rows, CONTRACT)
    np.testing.assert_allclose(convention.to_contract(theirs, CONTRACT), rows, atol=1e-12)


def test_calvin_s_relative_action() -> None:
    convention = Convention(
        rotation="euler_xyz", gripper="binary_close_negative", position_scale_m=0.02, rotation_scale_rad=0.05
    )
    rows = convention.to_contract(np.array([[1.0, 0, 0, 0, 0, 1.0, -1.0]]), CONTRACT)
    np.testing.assert_allclose(rows, [[0.02, 0, 0, 0, 0, 0.05, 0.0]], atol=1e-12)


def test_a_server_s_formats_are_taken_over_or_refused() -> None:
    spec = {
        "position": {"format": "delta_xyz"},
        "rotation": {"format": "euler_xyz"},
        "gripper": {"format": "binary_close_positive"},
    }
    assert Convention().with_spec(spec, CONTRACT) == Convention(rotation="euler_xyz", gripper="binary_close_positive")
    with pytest.raises(RemoteError, match="absolute_xyz.*ee_delta"):
        Convention().with_spec({"position": {"format": "absolute_xyz"}}, CONTRACT)
    with pytest.raises(RemoteError, match="rot6d"):
        Convention().with_spec({"rotation": {"format": "rot6d_interleaved"}}, CONTRACT)


def test_what_is_declared_is_what_is_understood() -> None:
    convention = Convention(rotation="quaternion_xyzw", gripper="binary_close_01")
    assert Convention().with_spec(convention.spec(CONTRACT), CONTRACT) == convention


def test_the_wrong_number_of_columns_is_refused() -> None:
    with pytest.raises(RemoteError, match=r"got shape \(1, 8\), expected \(rows, 7\)"):
        Convention().to_contract(np.zeros((1, 8)), CONTRACT)

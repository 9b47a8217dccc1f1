"""Rotations in every form: known values, and there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_policy.action.rotation_forms import matrix_from, quaternion_from, rotation_as, rotation_size

FORMS = ("rotation_vector", "quaternion_xyzw", "quaternion_wxyz", "matrix", "matrix_columns", "euler_xyz", "euler_zyx",
         "euler_XYZ", "euler_ZYX")
QUARTER = np.pi / 2


@pytest.mark.parametrize("form", FORMS)
@given(vector=st.tuples(*[st.floats(-3.0, 3.0)] * 3))
def test_there_and_back(form: str, vector: tuple[float, float, float]) -> None:
    quaternion = quaternion_from("rotation_vector", np.array([vector]))
    written = rotation_as(form, quaternion)
    assert written.shape == (1, rotation_size(form))
    again = quaternion_from(form, written)
    assert abs(np.sum(quaternion * again)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("form", "angles", "sees"), [
    ("euler_xyz", [QUARTER, 0, QUARTER], [0, 1, 0]),  # x turned first about x, then about the fixed z
    ("euler_XYZ", [QUARTER, 0, QUARTER], [0, 0, 1]),  # about x, then about its own z, which now points along -y
])
def test_fixed_and_moving_axes(form: str, angles: list[float], sees: list[float]) -> None:
    matrix = matrix_from(quaternion_from(form, np.array(angles, float)))
    np.testing.assert_allclose(matrix @ [1, 0, 0], sees, atol=1e-12)


def test_two_columns_are_made_orthonormal() -> None:
    quaternion = quaternion_from("matrix_columns", np.array([2.0, 0, 0, 1.0, 3.0, 0]))
    np.testing.assert_allclose(quaternion, [0, 0, 0, 1], atol=1e-12)

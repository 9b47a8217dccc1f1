"""Arrays in; out: the normaliser's range, its way back, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_policy.errors import BundleError
from vla_policy.normalizer import Normalizer

NAMES = ("x", "y")


@pytest.fixture
def normalizer() -> Normalizer:
    return Normalizer.fit(np.column_stack([np.linspace(-1, 3, 1001), np.linspace(0, 10, 1001)]), NAMES)


def test_range_is_the_first_to_the_ninety_ninth_percentile(normalizer: Normalizer) -> None:
    assert normalizer.low == pytest.approx((-0.96, 0.1))
    assert normalizer.high == pytest.approx((2.96, 9.9))
    assert normalizer.mean == pytest.approx((1.0, 5.0))
    normalised = normalizer.apply([[-0.96, 0.1], [2.96, 9.9], [1.0, 5.0]])
    np.testing.assert_allclose(normalised, [[-1, -1], [1, 1], [0, 0]], atol=1e-6)


def test_wild_samples_do_not_set_the_scale_and_are_clipped() -> None:
    values = np.append(np.linspace(-1, 1, 1000), 1e6)[:, None]
    normalizer = Normalizer.fit(values, ("x",))
    assert normalizer.high[0] < 1.01
    assert normalizer.apply([[1e6]])[0, 0] == 1.0


@settings(max_examples=50, deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1))
def test_invert_undoes_apply_inside_the_range(x: float, y: float) -> None:
    normalizer = Normalizer.fit(np.linspace([-2.0, 0.0], [4.0, 0.05], 500), NAMES)
    back = normalizer.apply(normalizer.invert([x, y]))
    np.testing.assert_allclose(back, [x, y], atol=1e-6)


def test_constant_dimension_becomes_zero_and_its_centre_again() -> None:
    values = np.column_stack([np.linspace(0, 1, 100), 0.7 + 1e-6 * np.random.default_rng(0).normal(size=100)])
    normalizer = Normalizer.fit(values, NAMES)
    assert (normalizer.apply(values)[:, 1] == 0).all()
    assert normalizer.invert([[0.3, 0.9]])[0, 1] == pytest.approx(0.7, abs=1e-4)


def test_invert_never_leaves_the_range(normalizer: Normalizer) -> None:
    np.testing.assert_allclose(normalizer.invert([[5.0, -5.0]]), [[2.96, 0.1]])


def test_saved_and_loaded_is_equal(normalizer: Normalizer, tmp_path: Path) -> None:
    normalizer.save(tmp_path / "n.json")
    assert Normalizer.load(tmp_path / "n.json") == normalizer


def test_unknown_key_in_the_file_names_the_nearest(normalizer: Normalizer, tmp_path: Path) -> None:
    data = normalizer.model_dump(mode="json")
    data["hihg"] = data.pop("high")
    (tmp_path / "n.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="did you mean 'high'"):
        Normalizer.load(tmp_path / "n.json")


@pytest.mark.parametrize(("values", "match"), [
    (np.zeros((0, 2)), "T >= 1"), (np.zeros((5, 3)), r"expected \(T, 2\)"),
    (np.full((5, 2), np.nan), "row 0 is not finite")])
def test_bad_data_is_refused(values: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Normalizer.fit(values, NAMES)


def test_crossed_range_is_refused(normalizer: Normalizer, tmp_path: Path) -> None:
    data = normalizer.model_dump(mode="json") | {"low": [5, 0]}
    (tmp_path / "n.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="low 5.0 above high"):
        Normalizer.load(tmp_path / "n.json")

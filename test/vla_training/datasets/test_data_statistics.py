"""Statistics of mapped data: exact, kept with a key, refused for any other data."""

from pathlib import Path

import numpy as np
import pytest
from fabricated import tabletop
from test_window_set import data_of, sets  # noqa: F401

from vla_policy.errors import DataError
from vla_policy.normalizer import Normalizer
from vla_training.datasets.config import Source
from vla_training.datasets.statistics import Statistics, fit_columns
from vla_training.datasets.training_data import open_training_data


def test_columns_are_fitted_as_the_normaliser_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(count, 3)).astype(np.float32) for count in (50, 7)]
    got = fit_columns(arrays, ("a", "b", "c"), 1e-3)
    expected = Normalizer.fit(np.concatenate(arrays), ("a", "b", "c"), 1e-3)
    for name in ("low", "high", "mean", "std"):
        assert np.allclose(getattr(got, name), getattr(expected, name), rtol=1e-12)


def test_statistics_are_read_back_for_the_same_data_only(sets: dict, tmp_path: Path) -> None:  # noqa: F811
    one, two = (str(sets[name].root) for name in ("one", "two"))
    data = data_of(sets, Source(path=one))
    file = tmp_path / "statistics.json"
    file.write_text(data.statistics.model_dump_json())
    assert data.statistics.rows == 21 * 4
    assert data_of(sets, Source(path=one)).statistics.key == data.statistics.key
    again = open_training_data([Source(path=one)], tabletop(), data.model, statistics=file)
    assert again.statistics == data.statistics
    for other in (Source(path=two), Source(path=one, tasks=("lift_the_red_block",))):
        with pytest.raises(
            DataError, match=f"statistics of {one} .*expected those of {other.path} with this mapping, contract"
        ):
            open_training_data([other], tabletop(), data.model, statistics=file)
    with pytest.raises(DataError, match="no such file"):
        Statistics.load(tmp_path / "none.json", "", [])


def test_another_contract_or_state_has_other_statistics(sets: dict) -> None:  # noqa: F811
    data = data_of(sets)
    blind = data.model.model_copy(update={"proprioception": False, "proprioception_joints": ()})
    other = open_training_data([data.sources[0].source], tabletop(), blind)
    assert other.statistics.key != data.statistics.key
    assert other.statistics.state is None

"""Mapped columns in, their statistics out: mean, std, 1st and 99th percentile of every dimension, kept with a key.

The key is a digest of the data sets' fingerprints, their mapping, the contract's action part and the chosen episodes,
so that the statistics of other data are not taken for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import DataError
from vla_policy.model.config import ModelConfig
from vla_policy.normalizer import Normalizer
from vla_policy.observation.proprioception import proprioception_names
from vla_policy.strict import StrictModel, load_yaml

STATE_MIN_SPAN = 0.02  # m or rotation units: a channel that hardly moves must not blow its noise up
ACTION_MIN_SPAN = 1e-3


@dataclass(frozen=True, slots=True)
class Normalizers:
    """Of the arm's actions, and of the model's state where it feels something."""

    action: Normalizer
    state: Normalizer | None


class Statistics(StrictModel):
    """Statistics of some data. key: what they belong to. data: the folders, for a reader. rows: action rows they were
    made of.
    """

    key: str
    data: tuple[str, ...]
    episodes: int
    rows: int
    action: Normalizer
    state: Normalizer | None = None

    @property
    def normalizers(self) -> Normalizers:
        """What the model is trained with."""
        return Normalizers(self.action, self.state)

    @classmethod
    def load(cls, path: Path | str, key: str, data: Sequence[str]) -> Statistics:
        """Read statistics for the data with this key. Raises: DataError for a file that is none, or one of other
        data.
        """
        statistics = load_yaml(cls, path, DataError)
        if statistics.key != key:
            raise DataError(
                f"{path}: statistics of {', '.join(statistics.data)} (key {statistics.key[:12]}), expected those of "
                f"{', '.join(data)} with this mapping, contract and choice of episodes (key {key[:12]}); make "
                "them anew by `stats`, or leave `statistics` out"
            )
        return statistics


def fit_columns(arrays: Sequence[NDArray[np.floating]], names: tuple[str, ...], min_span: float) -> Normalizer:
    """The normaliser of the rows of some arrays (N, F), exact; one dimension after the other is in memory."""
    one = [
        Normalizer.fit(np.concatenate([array[:, [i]] for array in arrays]), (name,), min_span)
        for i, name in enumerate(names)
    ]
    return Normalizer(
        names=names,
        min_span=min_span,
        **{key: tuple(getattr(n, key)[0] for n in one) for key in ("low", "high", "mean", "std")},
    )


def fit_actions(rows: Sequence[NDArray[np.float32]], contract: RobotContract) -> Normalizer:
    """The normaliser of the arm columns of action rows (N, A)."""
    return fit_columns(
        rows,
        contract.action_names[: len(contract.action_names) - (contract.action.gripper is not None)],
        ACTION_MIN_SPAN,
    )


def fit_state(states: Sequence[NDArray[np.float32]], contract: RobotContract, model: ModelConfig) -> Normalizer | None:
    """The normaliser of the model's state vectors (N, P); None where the model feels nothing."""
    if not model.proprioception:
        return None
    return fit_columns(states, proprioception_names(contract, model.proprioception_joints), STATE_MIN_SPAN)

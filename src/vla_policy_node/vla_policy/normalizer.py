"""Recorded values in, a Normalizer out; contract units in, numbers in [-1, 1] out, and back.

The range of each dimension is its 1st to 99th percentile, so that a few wild samples do not set the scale
(RoboVLMs, https://arxiv.org/abs/2412.14058).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from vla_policy.errors import BundleError
from vla_policy.strict import StrictModel, load_yaml

Numbers = tuple[float, ...]


class Normalizer(StrictModel):
    """Scales each dimension to [-1, 1]. One narrower than `min_span` is constant: 0, and its centre again.

    names: of the F dimensions. low, high: 1st and 99th percentile. mean, std: for the reader; all in the
    units of the data.
    """

    names: tuple[str, ...]
    low: Numbers
    high: Numbers
    mean: Numbers
    std: Numbers
    min_span: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _consistent(self) -> Normalizer:
        for field in ("low", "high", "mean", "std"):
            if len(getattr(self, field)) != self.size:
                raise ValueError(f"{field}: got {len(getattr(self, field))} values, expected {self.size}, "
                                 "one per name")
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if low > high:
                raise ValueError(f"{name}: got low {low} above high {high}; fit the normaliser again")
        return self

    @classmethod
    def fit(cls, values: ArrayLike, names: tuple[str, ...], min_span: float = 1e-3) -> Normalizer:
        """Statistics of values (T, F).

        Raises: ValueError for another shape, no rows, or numbers that are not finite.
        """
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or len(values) == 0 or values.shape[1] != len(names):
            raise ValueError(f"values: got shape {values.shape}, expected (T, {len(names)}) with T >= 1, one "
                             f"column per name {list(names)}")
        if not np.isfinite(values).all():
            raise ValueError(f"values: row {int(np.argwhere(~np.isfinite(values))[0, 0])} is not finite; "
                             "remove it from the dataset")
        low, high = np.percentile(values, (1, 99), axis=0)
        return cls(names=names, low=tuple(low.tolist()), high=tuple(high.tolist()), min_span=min_span,
                   mean=tuple(values.mean(0).tolist()), std=tuple(values.std(0).tolist()))

    @property
    def size(self) -> int:
        """F, the number of dimensions."""
        return len(self.names)

    def apply(self, values: ArrayLike) -> NDArray[np.float32]:
        """Values (..., F) in data units -> float32 (..., F), clipped to [-1, 1]."""
        center, half, constant = self._scale()
        scaled = np.where(constant, 0.0, (np.asarray(values, np.float64) - center) / half)
        return np.clip(scaled, -1.0, 1.0).astype(np.float32)

    def invert(self, values: ArrayLike) -> NDArray[np.float64]:
        """Numbers (..., F), clipped to [-1, 1] -> float64 (..., F) in data units."""
        center, half, constant = self._scale()
        return center + np.where(constant, 0.0, np.clip(np.asarray(values, np.float64), -1.0, 1.0) * half)

    def save(self, path: Path | str) -> None:
        """Write a JSON file."""
        Path(path).write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Normalizer:
        """Read a JSON file, strictly. Raises: BundleError."""
        return load_yaml(cls, path, BundleError)

    def _scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        low, high = np.asarray(self.low), np.asarray(self.high)
        constant = high - low < self.min_span
        return (low + high) / 2, np.where(constant, 1.0, (high - low) / 2), constant

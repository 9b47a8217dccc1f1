"""The name of a part of a published column in ('action[0:3]'), the numbers of that part out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.errors import DataError, nearest
from vla_training.datasets.source import Column, SourceSpec


@dataclass(frozen=True, slots=True)
class ColumnPart:
    """Places along the last axis of a column. names: of those places where they were published."""

    column: str
    places: tuple[int, ...]
    names: tuple[str, ...] | None

    @classmethod
    def find(cls, text: str, spec: SourceSpec, where: str) -> ColumnPart:
        """Look a part up. text: 'action', 'action[6]', 'action[0:3]', 'action[-1]' or 'action[x, y]'.

        Raises: DataError beginning with `where` for a column, name or place that the data set does not have.
        """
        name, _, chosen = text.rstrip("]").partition("[")
        if name not in spec.columns:
            raise DataError(f"{where}: no column '{name}'; {nearest(name, spec.columns)}")
        column = spec.columns[name]
        size = column.shape[-1] if column.shape else 1
        places = _places(chosen, column, size) if chosen else tuple(range(size))
        if places is None or not places:
            names = f" ({', '.join(column.names)})" if column.names else ""
            raise DataError(f"{where}: got '{text}', expected a part of its {size} values{names}")
        return cls(name, places, tuple(column.names[i] for i in places) if column.names else None)

    def __len__(self) -> int:
        return len(self.places)

    def take(self, columns: Mapping[str, NDArray[Any]], rows: bool) -> NDArray[np.float64]:
        """The numbers, float64 (T, n); with `rows`, (T, R, n): R rows of a chunk a frame, 1 where there is no such
        axis.
        """
        values = columns[self.column].astype(np.float64)
        values = values[:, None] if values.ndim == 1 else values
        values = values[..., list(self.places)]
        return values[:, None] if rows and values.ndim == 2 else values


def _places(chosen: str, column: Column, size: int) -> tuple[int, ...] | None:
    """None for what there is not."""
    between = re.fullmatch(r"\s*(-?\d*)\s*:\s*(-?\d*)\s*", chosen)
    if between:
        low, high = (int(text) if text else None for text in between.groups())
        inside = (low or 0) <= size and (high or 0) <= size
        return tuple(range(size)[low:high]) if inside else None
    places = []
    for word in (word.strip() for word in chosen.split(",")):
        if column.names and word in column.names:
            places.append(column.names.index(word))
        elif re.fullmatch(r"-?\d+", word) and -size <= int(word) < size:
            places.append(int(word) % size)
        else:
            return None
    return tuple(places)

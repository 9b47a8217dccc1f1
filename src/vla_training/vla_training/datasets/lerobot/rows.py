"""Parquet files and row numbers in, those rows out: only the row groups and columns that hold them are read."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla_policy.errors import DataError

OPEN_FILES = 16
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
KEPT_BYTES = 64_000_000  # of decoded row groups that a process keeps, for the next episode often lies in one of them


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with a parquet file. Raises: DataError naming it."""
    try:
        yield
    except FileNotFoundError as problem:
        raise DataError(f"{path}: no such file; download or record it again") from problem
    except (pa.ArrowException, OSError) as problem:
        reason = str(problem).splitlines()[0]
        raise DataError(f"{path}: not a readable parquet file ({reason}); it is cut off or corrupt") from problem


class RowReader:
    """Rows of many parquet files. Files open late and stay open; a pickled or forked copy begins empty."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[Path, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int, tuple[str, ...]], pa.Table] = OrderedDict()
        self._bytes = 0

    def __reduce__(self) -> tuple[type[RowReader], tuple[()]]:
        return RowReader, ()

    def names(self, path: Path) -> list[str]:
        """Names of the columns of a file. Raises: DataError naming it."""
        with reading(path):
            return list(self._open(path).schema_arrow.names)

    def read(self, path: Path, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Rows [start, stop) of a file. Raises: DataError naming it where it has less, or not these columns."""
        names = tuple(columns)
        with reading(path):
            file = self._open(path)
            absent = [name for name in names if name not in file.schema_arrow.names]
            if absent:
                raise DataError(f"{path}: no column {', '.join(absent)}; it has {', '.join(file.schema_arrow.names)}")
            if stop > file.metadata.num_rows:
                rows = file.metadata.num_rows
                raise DataError(f"{path}: it has {rows} rows, expected at least {stop}; it is cut off")
            parts, first = [], 0
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if first < stop and first + rows > start:
                    low = max(start - first, 0)
                    parts.append(self._group(path, group, names).slice(low, min(stop - first, rows) - low))
                first += rows
        return pa.concat_tables(parts)

    def _open(self, path: Path) -> pq.ParquetFile:
        if self._process != os.getpid():
            self.__init__()  # type: ignore[misc]  # a fork shares its parent's file offsets
        file = self._files.pop(path, None) or pq.ParquetFile(path, memory_map=True)
        self._files[path] = file
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return file

    def _group(self, path: Path, group: int, names: tuple[str, ...]) -> pa.Table:
        key = (path, group, names)
        table = self._groups.pop(key, None)
        if table is None:
            table = self._files[path].read_row_group(group, list(names), use_threads=False)
            self._bytes += table.nbytes
        self._groups[key] = table
        while self._bytes > KEPT_BYTES and len(self._groups) > 1:
            self._bytes -= self._groups.popitem(last=False)[1].nbytes
        return table


def as_array(column: pa.ChunkedArray, shape: tuple[int, ...]) -> NDArray[Any]:
    """A column of numbers, or of nested lists of them, as (T, *shape); words as an array of str.

    Raises: ValueError where its lists do not fit the shape.
    """
    count, values = len(column), column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # an empty column, or one too large for a single array
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    while True:
        if isinstance(values, pa.ExtensionArray):  # tables as Hugging Face `datasets` registers them
            values = values.storage
        elif any(kind(values.type) for kind in LISTS):
            if len(values.value_lengths().unique()) > 1:
                raise ValueError("its lists differ in length")
            values = values.flatten()
        else:
            break
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return np.array(values.to_pylist(), dtype=str).reshape(count, *shape)
    return values.to_numpy(zero_copy_only=False).reshape(count, *shape)

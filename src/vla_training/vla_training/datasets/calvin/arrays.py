"""A .npy or .npz file in, its arrays out: only those asked for, and objects without letting their pickle run code."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy._core.multiarray import _reconstruct, scalar
from numpy.lib import format as npy
from numpy.typing import NDArray

from vla_policy.errors import DataError

# All that numpy's own pickles of arrays and numbers name; numpy 1 called the module `numpy.core`.
HARMLESS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): scalar for core in ("core", "_core")},
}
READ_PROBLEMS = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, NotImplementedError, OSError)


def load_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """These arrays of an .npz file, checked by their checksums. Raises: DataError naming the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            absent = sorted(set(names) - {name.removesuffix(".npy") for name in archive.namelist()})
            if absent:
                raise DataError(f"{path}: no array {', '.join(absent)} in it; it has {', '.join(npz_names(path))}")
            return {name: _array(archive.read(f"{name}.npy")) for name in names}
    except FileNotFoundError as problem:
        raise DataError(f"{path}: no such file; download or record it again") from problem
    except DataError:
        raise
    except READ_PROBLEMS as problem:
        raise DataError(f"{path}: not a readable .npz file ({problem}); it is cut off or corrupt") from problem


def npz_names(path: Path) -> list[str]:
    """Names of the arrays of an .npz file. Raises: DataError naming the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except FileNotFoundError as problem:
        raise DataError(f"{path}: no such file; download or record it again") from problem
    except READ_PROBLEMS as problem:
        raise DataError(f"{path}: not a readable .npz file ({problem}); it is cut off or corrupt") from problem


def load_npy(path: Path) -> Any:
    """The array of an .npy file, or the object that numpy saved in it: plain containers, numbers, words and arrays.

    Raises: DataError naming the file; one whose pickle asks for anything that arrays do not need is refused.
    """
    try:
        with path.open("rb") as file:
            shape, _, dtype = _read_header(file)
            if not dtype.hasobject:
                file.seek(0)
                return npy.read_array(file, allow_pickle=False)
            array = _Unpickler(file).load()
        return array.item() if shape == () else array
    except FileNotFoundError as problem:
        raise DataError(f"{path}: no such file; download it again") from problem
    except _RefusedPickle as problem:
        reason = f"its pickle asks for {problem}, which no array needs: it may run foreign code"
        raise DataError(f"{path}: refused, {reason}") from problem
    except (*READ_PROBLEMS, pickle.UnpicklingError, AttributeError, IndexError, TypeError, MemoryError) as problem:
        raise DataError(f"{path}: not a readable .npy file ({problem}); it is cut off or corrupt") from problem


class _RefusedPickle(Exception):
    """A pickle that names what is not on the list."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only what is on the list can be called; plain containers, numbers and words need no name."""
        try:
            return HARMLESS[module, name]
        except KeyError:
            raise _RefusedPickle(f"{module}.{name}") from None


def _array(data: bytes) -> NDArray[Any]:
    """What `numpy.lib.format.read_array` does, but headers, of which all frames have the same, are parsed once."""
    version = npy.read_magic(io.BytesIO(data))
    prefix = 10 if version == (1, 0) else 12
    stop = prefix + int.from_bytes(data[8:prefix], "little")
    shape, fortran_order, dtype = _header(data[:stop])
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, expected numbers")
    array = np.frombuffer(data, dtype, count=int(np.prod(shape)), offset=stop)
    return array.reshape(shape[::-1]).T if fortran_order else array.reshape(shape)


@lru_cache(maxsize=256)
def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return _read_header(io.BytesIO(data))


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format, expected 1.0 or 2.0")
    return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)

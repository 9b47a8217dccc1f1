"""What it took long to find out about a data set in, kept beside it until the data changes."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FOLDER = ".vla_index"
Index = TypeVar("Index")
Arrays = dict[str, NDArray[Any]]


def cached_index(root: Path, name: str, fingerprint: str, build: Callable[[], Any]) -> Any:
    """What `build` returns (anything that JSON takes), built once for a data set and fingerprint.

    It lies in `root`/.vla_index or, where that cannot be written, in $XDG_CACHE_HOME/vla_training,
    ~/.cache/vla_training by default. An index that cannot be read is built anew.
    """
    return _cached(root, f"{name}-{fingerprint[:32]}.json", build, json.loads, lambda index: json.dumps(index).encode())


def cached_arrays(root: Path, name: str, fingerprint: str, build: Callable[[], Arrays]) -> Arrays:
    """As `cached_index`, for named arrays of numbers and text."""
    return _cached(root, f"{name}-{fingerprint[:32]}.npz", build, _arrays_from, _bytes_of)


def cache_home() -> Path:
    """The user's folder for what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla_training"


def _cached(root: Path, file: str, build: Callable[[], Index], parse: Callable[[bytes], Index],
            dump: Callable[[Index], bytes]) -> Index:
    places = [root / FOLDER / file, cache_home() / "index" / file]
    for place in places:
        try:
            return parse(place.read_bytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            continue
    index = build()
    data = dump(index)
    next((place for place in places if _write(place, data)), None)
    return index


def _arrays_from(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def _bytes_of(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write(place: Path, data: bytes) -> bool:
    """Write whole or not at all, and drop older indexes of the same name; False where the folder cannot be written."""
    name, suffix = place.stem[:-33], place.suffix
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=place.parent, prefix=".")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(scratch, place)
    except OSError:
        return False
    if place.parent.name == FOLDER:
        older = re.compile(rf"{re.escape(name)}-[0-9a-f]{{32}}{re.escape(suffix)}")
        for file in place.parent.iterdir():
            if file != place and older.fullmatch(file.name):
                file.unlink(missing_ok=True)
    return True

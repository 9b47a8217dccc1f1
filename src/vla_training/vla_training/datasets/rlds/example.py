"""A serialised tf.train.Example in, the places and values of its features out, without protobuf.

Wire format: https://protobuf.dev/programming-guides/encoding/. Messages: Example {1: Features}, Features {1: map
entry}, entry {1: key, 2: Feature}, Feature {1: BytesList | 2: FloatList | 3: Int64List}, each list {1: repeated value}.
Only tags and lengths are looked at, so that images which nobody asks for are never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | memoryview

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


class ExampleError(ValueError):
    """The bytes are no tf.train.Example."""


class Kind(IntEnum):
    """Which list a feature holds; the field numbers of `Feature`."""

    BYTES = 1
    FLOATS = 2
    INTEGERS = 3


@dataclass(frozen=True, slots=True)
class Values:
    """Where the values of a feature lie in the Example: [start, stop) of each value (BYTES) or run of packed values."""

    kind: Kind
    spans: tuple[tuple[int, int], ...]


def locate(example: Buffer) -> dict[str, Values]:
    """Feature name -> where its values lie; a feature that was written without values is left out.

    Raises: ExampleError.
    """
    found = {}
    try:
        for _, features in _fields(example, 0, len(example), (1,)):
            for _, entry in _fields(example, *features, (1,)):
                parts = dict(_fields(example, *entry, (1, 2)))
                name = bytes(example[slice(*parts[1])]).decode()
                for kind, span in _fields(example, *parts.get(2, (0, 0)), tuple(Kind)):
                    found[name] = Values(Kind(kind), tuple(value for _, value in _fields(example, *span, (1,))))
    except (IndexError, KeyError, UnicodeDecodeError) as problem:
        raise ExampleError(f"no tf.train.Example ({type(problem).__name__}: {problem})") from None
    return found


def floats(example: Buffer, values: Values) -> NDArray[np.float32]:
    """All values of a FLOATS feature, float32 (n,). Raises: ExampleError."""
    raw = _raw(example, values, Kind.FLOATS)
    if len(raw) % 4:
        raise ExampleError(f"a list of floats of {len(raw)} bytes, expected a multiple of 4")
    return raw.view("<f4").astype(np.float32, copy=False)


def integers(example: Buffer, values: Values) -> NDArray[np.int64]:
    """All values of an INTEGERS feature, int64 (n,): 7 bits a byte, the lowest first. Raises: ExampleError."""
    raw = _raw(example, values, Kind.INTEGERS)
    ends = np.flatnonzero(raw < 0x80)
    starts = np.append(0, ends[:-1] + 1) if len(ends) else ends
    lengths = ends - starts + 1
    longest = int(lengths.max(initial=0))
    if longest > _LONGEST_VARINT or (len(raw) and raw[-1] >= 0x80):
        raise ExampleError("a list of integers that is cut off or too long")
    numbers = np.zeros(len(ends), np.uint64)
    for place in range(longest):
        rows = np.flatnonzero(lengths > place)
        bits = raw[starts[rows] + place].astype(np.uint64) & np.uint64(0x7F)
        numbers[rows] |= bits << np.uint64(7 * place)
    return numbers.view(np.int64)


def byte_strings(example: Buffer, values: Values) -> list[Buffer]:
    """The values of a BYTES feature, as views. Raises: ExampleError."""
    if values.kind is not Kind.BYTES:
        raise ExampleError(f"got {values.kind.name.lower()}, expected bytes")
    return [example[start:stop] for start, stop in values.spans]


def _raw(example: Buffer, values: Values, kind: Kind) -> NDArray[np.uint8]:
    if values.kind is not kind:
        raise ExampleError(f"got {values.kind.name.lower()}, expected {kind.name.lower()}")
    runs = [np.frombuffer(example, np.uint8, stop - start, start) for start, stop in values.spans if stop > start]
    return np.concatenate(runs) if runs else np.empty(0, np.uint8)


def _fields(data: Buffer, start: int, stop: int, numbers: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Number and place of each field of a message that lies in [start, stop); other numbers are skipped."""
    while start < stop:
        tag, place = _varint(data, start)
        wire = tag & 7
        if wire == _LENGTH_DELIMITED:
            length, place = _varint(data, place)
            end = place + length
        elif wire == _VARINT:
            end = _varint(data, place)[1]
        elif wire in (_FIXED32, _FIXED64):
            end = place + (4 if wire == _FIXED32 else 8)
        else:
            raise ExampleError(f"no tf.train.Example (wire type {wire} at byte {start})")
        if end > stop:
            raise ExampleError(f"no tf.train.Example (a field at byte {start} ends at {end}, its message at {stop})")
        if tag >> 3 in numbers:
            yield tag >> 3, (place, end)
        start = end


def _varint(data: Buffer, place: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7

"""A TFRecord file in, its records out, each held against its checksums.

A record is: length (uint64), masked crc32c of it (uint32), data, masked crc32c of the data (uint32), little-endian.
Source of the layout: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from vla_policy.errors import DataError

_HEAD = struct.Struct("<QI")
_TAIL = struct.Struct("<I")
_MASK = 0xA282EAD8


def masked_crc(data: bytes | memoryview) -> int:
    """The checksum of `data` as TFRecord files store it: crc32c turned right by 15 bits, plus a constant."""
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def map_file(path: Path) -> memoryview:
    """A file's bytes, read from disk where they are looked at. Raises: DataError: no such file, or an empty one."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError:
        raise DataError(f"{path}: the file is empty; copy it again") from None
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror}; expected a shard of the data set") from None


def records(path: Path, check_data: bool = True) -> Iterator[tuple[int, memoryview]]:
    """Offset and data of every record, in order.

    check_data: hold the data against its checksum too, which reads all of it; lengths are always checked.
    Raises: DataError naming file and record for a wrong checksum or a file that ends within a record.
    """
    view, place, number = map_file(path), 0, 0
    while place < len(view):
        start = place + _HEAD.size
        if start > len(view):
            raise _cut_off(path, number, place, len(view))
        length, length_crc = _HEAD.unpack_from(view, place)
        if masked_crc(view[place : place + 8]) != length_crc:
            raise _corrupt(path, number, place, "length")
        stop = start + length
        if stop + _TAIL.size > len(view):
            raise _cut_off(path, number, place, len(view))
        data = view[start:stop]
        if check_data and masked_crc(data) != _TAIL.unpack_from(view, stop)[0]:
            raise _corrupt(path, number, place, "data")
        yield start, data
        place, number = stop + _TAIL.size, number + 1


def _cut_off(path: Path, number: int, place: int, size: int) -> DataError:
    return DataError(f"{path}: record {number} begins at byte {place} and is cut off at byte {size}, the end of the "
                     "file; copy the file again")


def _corrupt(path: Path, number: int, place: int, what: str) -> DataError:
    return DataError(f"{path}: record {number} at byte {place}: its {what} does not match its checksum; the file is "
                     "corrupt, copy it again")

"""The MCAP file of a bag in, its messages in the order of their arrival out, and single ones by time; no ROS."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from backports.zstd import ZstdError
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from vla_policy.errors import DataError, nearest
from vla_policy.types import NS_PER_S

# What rosbags and its decompressors raise on bytes that are no MCAP; its own errors cover only part of them.
_BROKEN = (AnyReaderError, ReaderError, SerdeError, struct.error, OSError, EOFError, ValueError, TypeError, KeyError,
           IndexError, AssertionError, OverflowError, MemoryError, RuntimeError, ZstdError)
_OPEN_FILES = 8  # that a process keeps; opening one reads its summary


def find_file(folder: Path) -> Path:
    """The one MCAP file of a bag. Raises: DataError."""
    files = sorted(folder.glob("*.mcap"))
    if len(files) != 1:
        raise DataError(f"{folder}: got {len(files)} MCAP files, expected one for an episode")
    return files[0]


def header_stamp_ns(raw: bytes | memoryview) -> int:
    """Stamp of a serialised message that begins with a std_msgs/Header. Raises: struct.error where it is too short."""
    order = "<" if raw[1] & 1 else ">"  # second byte of CDR's encapsulation
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", raw, 4)
    return seconds * NS_PER_S + nanoseconds


class BagMessages:
    """All messages of some topics of a bag, once through. Types are those defined in the file.

    expected: topic -> type it must have; the first ones must be there, `optional` may be missing.
    Raises: DataError naming the file, here and while reading.
    """

    def __init__(self, path: Path, expected: Mapping[str, str], optional: Mapping[str, str]) -> None:
        self._path = path
        with _reading(path):
            self._reader = AnyReader([path])
            self._reader.open()
        try:
            self._connections = self._choose(expected, optional)
        except DataError:
            self._reader.close()
            raise

    def __enter__(self) -> BagMessages:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def __iter__(self) -> Iterator[tuple[str, int, bytes]]:
        """Topic, receive time [ns] and serialised message, in the order of the file."""
        storage = self._reader.readers[0].storage
        with _reading(self._path):
            for connection, received_ns, raw in storage.messages_scan(self._connections):
                yield connection.topic, received_ns, raw

    def deserialize(self, raw: bytes, kind: str) -> Any:
        """A message object with the fields of its definition. Raises: DataError."""
        with _reading(self._path):
            return self._reader.deserialize(raw, kind)

    def _choose(self, expected: Mapping[str, str], optional: Mapping[str, str]) -> list[Connection]:
        found = {connection.topic: connection for connection in self._reader.connections}
        for topic, kind in {**expected, **{t: k for t, k in optional.items() if t in found}}.items():
            if topic not in found or not found[topic].msgcount:
                said = nearest(topic, [other for other, connection in found.items() if connection.msgcount])
                raise DataError(f"{self._path}: no message on {topic}, which its contract names; {said}")
            if found[topic].msgtype != kind:
                raise DataError(f"{self._path}: {topic}: got {found[topic].msgtype}, expected {kind} by its contract")
        return [connection for topic, connection in found.items() if topic in expected or topic in optional]


class BagImages:
    """Images by receive time and stamp, from a few files that stay open. Pickles without them."""

    def __init__(self) -> None:
        self._readers: OrderedDict[Path, Reader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._readers = OrderedDict()

    def read(self, path: Path, topic: str, wanted: Sequence[tuple[int, int]]) -> list[Any]:
        """The Image or CompressedImage messages received and stamped at these times [ns], in their order.

        Each chunk of the file is read once. Raises: DataError naming the file.
        """
        found: dict[tuple[int, int], Any] = {}
        with _reading(path):
            reader = self._open(path)
            connections = [connection for connection in reader.connections if connection.topic == topic]
            for first_ns, last_ns in _spans(reader, [received_ns for received_ns, _ in wanted]):
                for connection, received_ns, raw in reader.messages(connections, first_ns, last_ns + 1):
                    place = (received_ns, header_stamp_ns(raw))
                    if place in wanted:
                        found[place] = _common_types().deserialize_cdr(raw, connection.msgtype)
        for place in wanted:
            if place not in found:
                raise DataError(f"{path}: {topic}: its message of {place[1]} ns is gone; the file changed since it was "
                                "opened")
        return [found[place] for place in wanted]

    def _open(self, path: Path) -> Reader:
        if path not in self._readers:
            reader = Reader(path)
            reader.open()
            self._readers[path] = reader
            while len(self._readers) > _OPEN_FILES:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(path)
        return self._readers[path]


def _spans(reader: Reader, received_ns: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of those times that lie in the same chunk."""
    ends = sorted(chunk.message_end_time for chunk in reader.storage.chunks)
    for _, times in groupby(sorted(received_ns), lambda time_ns: bisect_left(ends, time_ns)):
        span = list(times)
        yield span[0], span[-1]


@cache
def _common_types() -> Typestore:
    return get_typestore(Stores.ROS2_KILTED)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever rosbags raises on a broken file into one that names it."""
    try:
        yield
    except DataError:
        raise
    except _BROKEN as problem:
        words = " ".join(str(problem).split()) or type(problem).__name__
        raise DataError(f"{path}: cannot be read as MCAP ({words}); it is cut off or corrupt, recover it or leave it "
                        "out") from None

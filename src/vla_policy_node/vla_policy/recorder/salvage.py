"""The MCAP file of an interrupted recording in, every message that is whole in it out; no index or summary is needed.

Records as the MCAP specification lays them out (https://mcap.dev/spec). A file that was cut off ends in the middle of a
record, mostly of a chunk; of one that is not compressed the messages before the cut are read too.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from backports.zstd import ZstdError
from backports.zstd import decompress as decompress_zstd
from lz4.frame import decompress as decompress_lz4
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2.metadata import parse_qos

from vla_policy.errors import DataError, VlaError
from vla_policy.recorder.bag import BagTopic, OfferedQos
from vla_policy.recorder.definitions import Definition, definition_from

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_HEAD = struct.Struct("<BQ")  # operation code and length of a record
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK_HEAD = struct.Struct("<QQQI")  # first and last time, size without compression, checksum
# What is raised on bytes that are not those that were written.
_DAMAGE = (ZstdError, RuntimeError, EOFError, ValueError, KeyError, struct.error)


@dataclass(frozen=True, slots=True)
class SavedMessage:
    """A message that was whole. received_ns: ROS time."""

    topic: BagTopic
    received_ns: int
    payload: bytes


class Salvage:
    """Reads a file once through. damaged_chunks: those whose bytes are not what was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: dict[int, tuple[str, str]] = {}
        self._topics: dict[int, BagTopic] = {}
        self._definitions: dict[str, Definition] = {}
        self.damaged_chunks = 0

    def __iter__(self) -> Iterator[SavedMessage]:
        """In the order of the file. Raises: DataError where it is no MCAP file at all."""
        with self._path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise DataError(f"{self._path}: got no MCAP file, not even its first bytes; nothing can be recovered")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # ends with its last slice
        yield from self._messages(data[len(MAGIC) :])

    def _messages(self, data: memoryview) -> Iterator[SavedMessage]:
        for operation, content in _records(data):
            if operation == _DATA_END:
                return
            if operation == _CHUNK:
                yield from self._chunk_messages(content)
            elif operation == _SCHEMA:
                self._add_schema(content)
            elif operation == _CHANNEL:
                self._add_channel(content)
            elif operation == _MESSAGE and len(content) >= _MESSAGE_HEAD.size:
                channel, _, received_ns, _ = _MESSAGE_HEAD.unpack_from(content)
                if channel in self._topics:
                    yield SavedMessage(self._topics[channel], received_ns, bytes(content[_MESSAGE_HEAD.size :]))

    def _chunk_messages(self, content: memoryview) -> Iterator[SavedMessage]:
        try:
            yield from self._messages(self._records_in(content))
        except VlaError:
            raise  # a type that is not installed is no damage
        except _DAMAGE:
            self.damaged_chunks += 1

    def _records_in(self, content: memoryview) -> memoryview:
        """Its records; of one that was cut off those before the cut, where it is not compressed."""
        if len(content) < _CHUNK_HEAD.size + 4:
            return memoryview(b"")
        _, _, size, checksum = _CHUNK_HEAD.unpack_from(content)
        compression, at = _text(content, _CHUNK_HEAD.size)
        records = content[at + 8 :]
        if not compression and len(records) < size:
            return records
        if compression:
            records = _decompressed(compression, records, size)
        if checksum and crc32(records) != checksum:
            raise ValueError("checksum")
        return records

    def _add_schema(self, content: memoryview) -> None:
        (number,) = struct.unpack_from("<H", content)
        name, at = _text(content, 2)
        encoding, at = _text(content, at)
        text, _ = _text(content, at)
        self._schemas[number] = (name, text if encoding == "ros2msg" else "")

    def _add_channel(self, content: memoryview) -> None:
        number, schema = struct.unpack_from("<HH", content)
        topic, at = _text(content, 4)
        _, at = _text(content, at)
        kind, text = self._schemas[schema]
        if kind not in self._definitions:
            self._definitions[kind] = definition_from(kind, text)
        self._topics[number] = BagTopic(topic, self._definitions[kind], _offered(content, at))


def _records(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Operation code and content of each record; the last one's content may be cut off, if it is a chunk."""
    at = 0
    while at + _HEAD.size <= len(data):
        operation, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + length > len(data):
            if operation == _CHUNK:
                yield operation, data[at:]
            return
        yield operation, data[at : at + length]
        at += length


def _text(data: memoryview, at: int) -> tuple[str, int]:
    """A string and the place after it."""
    (length,) = struct.unpack_from("<I", data, at)
    return str(data[at + 4 : at + 4 + length], "utf-8"), at + 4 + length


def _decompressed(compression: str, records: memoryview, size: int) -> memoryview:
    """Raises one of _DAMAGE where the bytes are damaged or cut off."""
    plain = (decompress_zstd if compression == "zstd" else decompress_lz4)(bytes(records))
    if len(plain) != size:
        raise ValueError("size")
    return memoryview(plain)


def _offered(content: memoryview, at: int) -> tuple[OfferedQos, ...]:
    """What a channel's metadata tell of its publishers."""
    (length,) = struct.unpack_from("<I", content, at)
    at, end = at + 4, at + 4 + length
    found = {}
    while at < end:
        key, at = _text(content, at)
        found[key], at = _text(content, at)
    return tuple(OfferedQos(qos.reliability is QosReliability.RELIABLE,
                            qos.durability is QosDurability.TRANSIENT_LOCAL)
                 for qos in parse_qos(found.get("offered_qos_profiles", "")))

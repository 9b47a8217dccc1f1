"""Serialised messages in, a rosbag2 bag with one MCAP file out, as any rosbag2 or MCAP reader opens it.

`BagWriter` is what an episode needs of a bag. Here it is written by the library rosbags; where a ROS distribution
brings its own rosbag2, `vla_policy_node.rosbag2_writer` does it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from vla_policy.recorder.definitions import Definition

BAG_VERSION = 9  # of metadata.yaml: that of Jazzy and Kilted
_FOREVER = QosTime(9223372036, 854775807)  # as ROS writes an endless duration


@dataclass(frozen=True, slots=True)
class OfferedQos:
    """What a publisher offers; a player offers the same."""

    reliable: bool = True
    transient_local: bool = False


@dataclass(frozen=True, slots=True)
class BagTopic:
    """A topic of a bag. offered: one for each of its publishers."""

    name: str
    definition: Definition
    offered: tuple[OfferedQos, ...] = ()


class BagWriter(Protocol):
    """A bag in the making. Every method may raise OSError or RuntimeError, e.g. where the disk is full."""

    def add_topic(self, topic: BagTopic) -> None:
        """Announce a topic before its first message."""

    def write(self, topic: str, received_ns: int, payload: bytes) -> None:
        """Append a message."""

    def sync(self) -> None:
        """Hand everything written so far to the operating system, as far as the writer can."""

    def close(self) -> None:
        """Finish the bag."""

    def abort(self) -> None:
        """Leave the bag as it is on the disk; never raises."""


OpenBag = Callable[[Path], BagWriter]


class RosbagsWriter:
    """A bag by rosbags. `folder` must not exist. compressed: chunks by zstd."""

    def __init__(self, folder: Path, compressed: bool = False) -> None:
        self._writer = Writer(folder, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
        if compressed:
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._path = folder / f"{folder.name}.mcap"
        self._connections = {}
        self._disk = ThreadPoolExecutor(1, f"sync {folder.name}")
        self._syncing: Future[None] | None = None

    def add_topic(self, topic: BagTopic) -> None:
        """See `BagWriter`."""
        definition = topic.definition
        self._connections[topic.name] = self._writer.add_connection(
            topic.name, definition.type, msgdef=definition.text, rihs01=definition.type_hash,
            offered_qos_profiles=[_rosbags_qos(offered) for offered in topic.offered])

    def write(self, topic: str, received_ns: int, payload: bytes) -> None:
        """See `BagWriter`."""
        self._writer.write(self._connections[topic], received_ns, payload)

    def sync(self) -> None:
        """Close the chunk under way, so that a reader finds it; the disk hears of it, but is not waited for."""
        storage = self._writer.storage
        if storage.chunk.msgs:
            storage.close_chunk()
        storage.bio.flush()
        if self._syncing is None or self._syncing.done():
            if self._syncing is not None:
                self._syncing.result()
            self._syncing = self._disk.submit(os.fdatasync, storage.bio.fileno())

    def close(self) -> None:
        """See `BagWriter`."""
        self._disk.shutdown()
        self._writer.close()
        for path in (self._path, self._writer.metapath):
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def abort(self) -> None:
        """See `BagWriter`."""
        self._disk.shutdown()
        with suppress(OSError):  # what it still holds does not fit on a full disk
            self._writer.abort()


def _rosbags_qos(offered: OfferedQos) -> Qos:
    """As rosbag2 writes it: a publisher does not tell its depth."""
    return Qos(QosHistory.UNKNOWN, 0, QosReliability.RELIABLE if offered.reliable else QosReliability.BEST_EFFORT,
               QosDurability.TRANSIENT_LOCAL if offered.transient_local else QosDurability.VOLATILE,
               _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False)

"""Serialised messages in, a bag written by a ROS distribution's own rosbag2 out. Import it only where that is there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import rosbag2_py
from rosbag2_py._storage import QoS  # where it stands in every distribution

from vla_policy.recorder.bag import BagTopic, OfferedQos

COMPRESSED_PRESET = "zstd_fast"  # of the MCAP plugin
_DEPTH = 10  # that a player takes; a publisher does not tell its own


class Rosbag2Writer:
    """A `vla_policy.recorder.bag.BagWriter` by rosbag2_py. `folder` must not exist."""

    def __init__(self, folder: Path, compressed: bool = False) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._writer: rosbag2_py.SequentialWriter | None = rosbag2_py.SequentialWriter()
        # Without rosbag2's cache a message goes to the MCAP writer at once, which holds a chunk of 768 KiB.
        self._writer.open(
            rosbag2_py.StorageOptions(uri=str(folder), storage_id="mcap", max_cache_size=0,
                                      storage_preset_profile=COMPRESSED_PRESET if compressed else ""),
            rosbag2_py.ConverterOptions(input_serialization_format="cdr", output_serialization_format="cdr"))
        self._topics = 0

    def add_topic(self, topic: BagTopic) -> None:
        """See `BagWriter`. rosbag2 finds the definition by itself."""
        self._writer.create_topic(rosbag2_py.TopicMetadata(
            id=self._topics, name=topic.name, type=topic.definition.type, serialization_format="cdr",
            offered_qos_profiles=[_qos(offered) for offered in topic.offered],
            type_description_hash=topic.definition.type_hash))
        self._topics += 1

    def write(self, topic: str, received_ns: int, payload: bytes) -> None:
        """See `BagWriter`."""
        self._writer.write(topic, payload, received_ns)

    def sync(self) -> None:
        """Bring to the disk what rosbag2 has written; the chunk under way stays with it."""
        for file in self._folder.glob("*.mcap"):
            with file.open("rb") as opened:
                os.fdatasync(opened.fileno())

    def close(self) -> None:
        """See `BagWriter`."""
        writer, self._writer = self._writer, None
        _close(writer)
        del writer
        self.sync()

    def abort(self) -> None:
        """See `BagWriter`; rosbag2 knows no abort, it closes as far as it can."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError, RuntimeError):
                _close(writer)


def _close(writer: rosbag2_py.SequentialWriter) -> None:
    """Some releases have no such method and close when the last reference goes."""
    if hasattr(writer, "close"):
        writer.close()


def _qos(offered: OfferedQos) -> QoS:
    qos = QoS(_DEPTH)
    qos = qos.reliable() if offered.reliable else qos.best_effort()
    return qos.transient_local() if offered.transient_local else qos.durability_volatile()

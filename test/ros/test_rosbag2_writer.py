"""Bags by rosbag2_py. It is in no wheel, so a double stands in that takes what the interface files of rosbag2_py name.

It holds the calls to their signatures and order; whether the bag is right only the genuine one can show.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vla_policy.recorder.bag import BagTopic, OfferedQos
from vla_policy.recorder.definitions import definition_of

pytestmark = pytest.mark.skipif(find_spec("rosbag2_py") is not None, reason="the genuine rosbag2_py is here")
BOOL = definition_of("std_msgs/msg/Bool")


class QoS:
    """rosbag2_py._storage.QoS: each call gives itself."""

    def __init__(self, history_depth: int) -> None:
        self.said = [history_depth]

    def __getattr__(self, name: str) -> Any:
        assert name in ("reliable", "best_effort", "transient_local", "durability_volatile"), name

        def say() -> QoS:
            self.said.append(name)
            return self

        return say


class StorageOptions:
    """What is used of it."""

    def __init__(self, uri: str, storage_id: str = "", max_bagfile_size: int = 0, max_bagfile_duration: int = 0,
                 max_cache_size: int = 0, storage_preset_profile: str = "") -> None:
        self.uri, self.storage_id, self.storage_preset_profile = uri, storage_id, storage_preset_profile


class ConverterOptions:
    """Both formats."""

    def __init__(self, input_serialization_format: str = "", output_serialization_format: str = "") -> None:
        self.formats = (input_serialization_format, output_serialization_format)


class TopicMetadata:
    """A topic to create."""

    def __init__(self, id: int, name: str, type: str, serialization_format: str,
                 offered_qos_profiles: list[QoS] | None = None, type_description_hash: str = "") -> None:
        self.told = (id, name, type, serialization_format, [qos.said for qos in offered_qos_profiles or []],
                     type_description_hash)


class SequentialWriter:
    """Makes the folder as rosbag2 does and keeps what it is told; `made` is the last one."""

    made: SequentialWriter

    def __init__(self) -> None:
        self.calls: list[Any] = []
        SequentialWriter.made = self

    def open(self, storage_options: StorageOptions, converter_options: ConverterOptions) -> None:
        """Refuses a folder that is there."""
        assert converter_options.formats == ("cdr", "cdr") and storage_options.storage_id == "mcap"
        self.preset = storage_options.storage_preset_profile
        folder = Path(storage_options.uri)
        folder.mkdir()
        (folder / f"{folder.name}_0.mcap").write_bytes(b"")

    def create_topic(self, topic: TopicMetadata) -> None:
        """Keep it."""
        self.calls.append(topic.told)

    def write(self, topic_name: str, message: bytes, time_stamp: int) -> None:
        """Keep it; rosbag2 refuses a topic that was not created."""
        assert any(call[1] == topic_name for call in self.calls), "write before create_topic"
        self.calls.append((topic_name, message, time_stamp))

    def close(self) -> None:
        """Keep it."""
        self.calls.append("closed")


@pytest.fixture
def writer_class(monkeypatch: pytest.MonkeyPatch) -> type:
    """`Rosbag2Writer`, on the double."""
    package, storage = ModuleType("rosbag2_py"), ModuleType("rosbag2_py._storage")
    for kind in (StorageOptions, ConverterOptions, TopicMetadata, SequentialWriter):
        setattr(package, kind.__name__, kind)
    storage.QoS = QoS
    monkeypatch.setitem(sys.modules, "rosbag2_py", package)
    monkeypatch.setitem(sys.modules, "rosbag2_py._storage", storage)
    monkeypatch.delitem(sys.modules, "vla_policy_node.rosbag2_writer", raising=False)
    from vla_policy_node.rosbag2_writer import Rosbag2Writer

    yield Rosbag2Writer
    del sys.modules["vla_policy_node.rosbag2_writer"]


def test_topics_messages_and_the_end_reach_rosbag2(writer_class: type, tmp_path: Path) -> None:
    bag = writer_class(tmp_path / "demos" / "one")
    made = SequentialWriter.made
    bag.add_topic(BagTopic("/a", BOOL, (OfferedQos(True, True), OfferedQos(False, False))))
    bag.write("/a", 12, b"\0\1\0\0\1")
    bag.sync()
    bag.add_topic(BagTopic("/b", BOOL))
    bag.close()
    profiles = [[10, "reliable", "transient_local"], [10, "best_effort", "durability_volatile"]]
    assert made.calls == [(0, "/a", "std_msgs/msg/Bool", "cdr", profiles, BOOL.type_hash), ("/a", b"\0\1\0\0\1", 12),
                          (1, "/b", "std_msgs/msg/Bool", "cdr", [], BOOL.type_hash), "closed"]
    assert made.preset == ""


def test_an_abort_closes_and_never_raises(
    writer_class: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: SequentialWriter) -> None:
        raise RuntimeError("No space left on device")

    bag = writer_class(tmp_path / "one", compressed=True)
    assert SequentialWriter.made.preset == "zstd_fast"
    monkeypatch.setattr(SequentialWriter, "close", full)
    bag.abort()
    bag.abort()


def test_a_release_without_close_closes_when_it_goes(
    writer_class: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(SequentialWriter, "close")
    bag = writer_class(tmp_path / "one")
    bag.close()
    assert bag._writer is None

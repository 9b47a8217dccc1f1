"""Definitions of message types: those of rosbags for its own, those installed for ours, refusals for others."""

from __future__ import annotations

from pathlib import Path

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError
from vla_policy.recorder.definitions import definition_from, definition_of
from vla_policy.recorder.topics import recorded_topics

ROOT = Path(__file__).resolve().parents[3]
ROBOTS = ROOT / "config/robots"
KINDS = sorted({topic.type for robot in ROBOTS.glob("*.yaml") for topic in recorded_topics(load_contract(robot), True)})


@pytest.fixture(scope="module")
def types() -> Typestore:
    """ROS's types and ours, as rosbags reads them."""
    store = get_typestore(Stores.ROS2_KILTED)
    for file in (ROOT / "src/vla_msgs/msg").glob("*.msg"):
        store.register(get_types_from_msg(file.read_text(), f"vla_msgs/msg/{file.stem}"))
    return store


@pytest.mark.parametrize("kind", KINDS)
def test_a_definition_is_whole_and_its_hash_that_of_rosbags(types: Typestore, kind: str) -> None:
    definition = definition_of(kind)
    assert definition.type_hash == types.hash_rihs01(kind)
    assert definition_from(kind, definition.text) == definition  # what a bag holds is enough to know it


def test_headers_are_known() -> None:
    assert definition_of("sensor_msgs/msg/Image").has_header
    assert not definition_of("std_msgs/msg/Bool").has_header


def test_a_definition_that_a_bag_does_not_hold_is_looked_up() -> None:
    assert definition_from("std_msgs/msg/Bool", "") == definition_of("std_msgs/msg/Bool")


def test_what_is_not_installed_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"message type mine_msgs/msg/Thing is not installed: got no share/"):
        definition_of("mine_msgs/msg/Thing")
    with pytest.raises(ConfigError, match="expected package/msg/Name"):
        definition_of("Thing")


def test_a_part_that_is_missing_names_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "share/half_msgs/msg"
    folder.mkdir(parents=True)
    (folder / "Half.msg").write_text("lost_msgs/Part part\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"lost_msgs/msg/Part, a part of half_msgs/msg/Half, is not installed"):
        definition_of("half_msgs/msg/Half")

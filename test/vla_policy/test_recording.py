"""The record of an episode: whole or not at all, and only with a contract and an instruction that hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import DataError
from vla_policy.recording import (
    EPISODE_FILE,
    EpisodeRecord,
    TopicRecord,
    contract_hash,
    read_episode,
    write_episode,
)

ROBOTS = Path(__file__).resolve().parents[2] / "config/robots"
TABLETOP = load_contract(ROBOTS / "tabletop.yaml")


def record(contract: RobotContract = TABLETOP) -> EpisodeRecord:
    topics = {"/joint_states": TopicRecord(type="sensor_msgs/msg/JointState", messages=200, rate_hz=99.6, dropped=2)}
    return EpisodeRecord(contract=contract, contract_hash=contract_hash(contract), instruction="open the drawer",
                         operator="Ada", outcome="success", seed=7, start_ns=10**9, stop_ns=3 * 10**9, topics=topics)


@pytest.mark.parametrize("robot", sorted(ROBOTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_record_comes_back_as_it_was(tmp_path: Path, robot: Path) -> None:
    written = record(load_contract(robot))
    write_episode(tmp_path, written)
    assert read_episode(tmp_path) == written
    assert os.listdir(tmp_path) == [EPISODE_FILE]


def test_a_record_is_never_replaced(tmp_path: Path) -> None:
    write_episode(tmp_path, record())
    with pytest.raises(DataError, match=r"episode\.json: already there"):
        write_episode(tmp_path, record())


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_episode(tmp_path, record())
    assert os.listdir(tmp_path) == []


def test_a_folder_without_one_was_interrupted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got no episode\.json, .*it was interrupted"):
        read_episode(tmp_path)


@pytest.mark.parametrize(("change", "words"), [
    ({"instruction": "  "}, "got an empty one"),
    ({"stop_ns": 10**9}, "expected the stop after the start"),
    ({"seed": "7"}, "seed: got '7'"),
    ({"contract": {"name": "x"}}, "contract.base_frame"),
    ({"operater": "Ada"}, "unknown key 'operater'; did you mean 'operator'"),
])
def test_what_is_wrong_is_named(tmp_path: Path, change: dict, words: str) -> None:
    data = json.loads(record().model_dump_json()) | change
    (tmp_path / EPISODE_FILE).write_text(json.dumps(data))
    with pytest.raises(DataError, match=words):
        read_episode(tmp_path)


def test_a_contract_that_was_changed_afterwards_is_seen(tmp_path: Path) -> None:
    data = json.loads(record().model_dump_json())
    data["contract"]["control_rate_hz"] = 25
    (tmp_path / EPISODE_FILE).write_text(json.dumps(data))
    with pytest.raises(DataError, match="contract_hash: got .* one of the two was changed by hand"):
        read_episode(tmp_path)


def test_the_hash_sees_values_not_the_file(tmp_path: Path) -> None:
    text = (ROBOTS / "tabletop.yaml").read_text()
    (tmp_path / "robot.yaml").write_text("# another comment\n" + text)
    assert contract_hash(load_contract(tmp_path / "robot.yaml")) == contract_hash(TABLETOP)
    (tmp_path / "robot.yaml").write_text(text.replace("control_rate_hz: 20", "control_rate_hz: 40"))
    assert contract_hash(load_contract(tmp_path / "robot.yaml")) != contract_hash(TABLETOP)

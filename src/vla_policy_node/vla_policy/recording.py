"""What is told of a recorded episode beside its messages: the recorder writes it last, whoever trains reads it first.

An episode is one folder: a rosbag2 bag (metadata.yaml and one *.mcap, every topic of the contract as it came) and
`episode.json`, an `EpisodeRecord`. It is written when the bag is whole, so a folder without it was interrupted. The
bag's receive times are those of the recorder's ROS clock: simulated time where time is simulated. While it is recorded
the folder holds `recording.json`, a `RunningRecord`, so that an interrupted one can be recovered.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla_policy.contract import RobotContract
from vla_policy.errors import DataError
from vla_policy.strict import StrictModel, load_yaml

EPISODE_FILE = "episode.json"
RUNNING_FILE = "recording.json"
COMMAND_TOPIC, COMMAND_TYPE = "/vla/command", "vla_msgs/msg/RobotCommand"  # what the robot was sent
INTERVENTION_TOPIC, INTERVENTION_TYPE = "/vla/intervention", "std_msgs/msg/Bool"  # true while an operator drives
Count = Annotated[int, Field(ge=0)]
Outcome = Literal["success", "failure", "unknown"]
Driver = Literal["operator", "policy", "script", "shared"]
_DECIDES = ("name", "base_frame", "tool_frame", "control_rate_hz", "cameras", "joints", "pose", "action")


class TopicRecord(StrictModel):
    """One topic of an episode. rate_hz: as measured. dropped: messages lost on the way, as far as that is known."""

    type: str
    messages: Count
    rate_hz: Annotated[float, Field(ge=0)] = 0.0
    dropped: Count = 0


class RunningRecord(StrictModel):
    """What is known of an episode while it is recorded. Times are ROS time [ns].

    start_ns: what came before belongs to no demonstration. pace: of the streams, as `vla_policy_node.pace` names it.
    task, seed: of a simulator's scene. driver: who drove.
    """

    contract: RobotContract
    instruction: str
    operator: str = ""
    driver: Driver = "operator"
    outcome: Outcome = "unknown"
    task: str = ""
    seed: int | None = None
    start_ns: Annotated[int, Field(gt=0)]
    pace: Literal["realtime", "lockstep"] = "realtime"
    note: str = ""

    @model_validator(mode="after")
    def _instructed(self) -> RunningRecord:
        if not self.instruction.strip():
            raise ValueError("instruction: got an empty one, expected what the robot was to do; write it there")
        return self


class EpisodeRecord(RunningRecord):
    """One whole episode.

    contract_hash: of `contract`, see `contract_hash`. stop_ns: what came after belongs to no demonstration.
    """

    format: Literal["vla_policy episode 1"] = "vla_policy episode 1"
    contract_hash: str
    stop_ns: Annotated[int, Field(gt=0)]
    topics: dict[str, TopicRecord]

    @model_validator(mode="after")
    def _consistent(self) -> EpisodeRecord:
        if not self.start_ns < self.stop_ns:
            raise ValueError(f"got start_ns {self.start_ns}, stop_ns {self.stop_ns}; expected the stop after the start")
        expected = contract_hash(self.contract)
        if self.contract_hash != expected:
            raise ValueError(f"contract_hash: got {self.contract_hash}, expected {expected} of the contract beside it; "
                             "one of the two was changed by hand")
        return self


def contract_hash(contract: RobotContract) -> str:
    """sha256 of a contract's values, hex; comments and order of keys in its YAML play no part."""
    return hashlib.sha256(json.dumps(contract.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def contract_differences(ours: RobotContract, theirs: RobotContract) -> list[str]:
    """Where two contracts give other data, in words; limits and watchdog may be tuned between episodes."""
    different = []
    for what in _DECIDES:
        here, there = (json.loads(one.model_dump_json(include={what}))[what] for one in (ours, theirs))
        if here != there:
            different.append(f"{what}: {here} here, {there} there")
    return different


def write_episode(folder: Path, record: EpisodeRecord) -> None:
    """Write `record` into the bag's folder, whole or not at all. Raises: DataError where one lies there already."""
    target = folder / EPISODE_FILE
    if target.exists():
        raise DataError(f"{target}: already there; expected a fresh recording; choose another folder")
    _write_whole(target, record)


def write_running(folder: Path, record: RunningRecord) -> None:
    """Write what is known so far into the bag's folder; it replaces what was known before."""
    _write_whole(folder / RUNNING_FILE, record)


def _write_whole(target: Path, record: RunningRecord) -> None:
    handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(record.model_dump(mode="json"), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, target)
    except OSError:
        Path(scratch).unlink(missing_ok=True)
        raise


def read_episode(folder: Path) -> EpisodeRecord:
    """The record in a bag's folder. Raises: DataError where there is none, or a broken one."""
    if not (folder / EPISODE_FILE).is_file():
        raise DataError(f"{folder}: got no {EPISODE_FILE}, expected the one that ends a recording; it was interrupted, "
                        f"record it again or recover it: {recover_command(folder)}")
    return load_yaml(EpisodeRecord, folder / EPISODE_FILE, DataError)


def read_running(folder: Path) -> RunningRecord:
    """What was known of an episode whose recording was interrupted. Raises: DataError where nothing or broken."""
    return load_yaml(RunningRecord, folder / RUNNING_FILE, DataError)


def recover_command(folder: Path) -> str:
    """What a person types to make an interrupted episode whole."""
    return f"ros2 run vla_policy recover_episode {folder}"

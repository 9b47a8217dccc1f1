"""The folder of a recorded episode in, its actions as rows to be sent once more out; and whether the arm stands right.

What is replayed is what the robot was sent (/vla/command), from the first to the last command that served a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.recorded_rows import action_rows, driven
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError, DataError
from vla_policy.messages import command_from_msg, joint_state_to_array
from vla_policy.observation.buffer import JOINTS
from vla_policy.observation.streams import JOINT_STATE, concerns
from vla_policy.recorded_bag import BagMessages, find_file
from vla_policy.recording import COMMAND_TOPIC, COMMAND_TYPE, EpisodeRecord, contract_differences, read_episode
from vla_policy.types import NS_PER_S, ActionChunk, Command

EXECUTE_ROWS = 2  # rows from one chunk to the next
REACH_ROWS = 12  # rows of a chunk: for so long the robot moves on when the replay dies


@dataclass(frozen=True, slots=True)
class RecordedActions:
    """An episode to replay. rows: float64 (T, A), the contract's actions. joints: (J,) rad or m, where it began."""

    record: EpisodeRecord
    rows: NDArray[np.float64]
    joints: NDArray[np.float64]


def load_actions(folder: Path, speed: float = 1.0) -> RecordedActions:
    """Read an episode. speed: share of the recorded speed, above 0 up to 1; slower ones have more rows.

    Raises: ConfigError for another speed; DataError naming the file where it cannot be read, or nobody drove in it.
    """
    if not 0.0 < speed <= 1.0:
        raise ConfigError(f"speed: got {speed:g}, expected above 0 up to 1; a replay is never faster than the "
                          "recording")
    record, path = read_episode(folder), find_file(folder)
    contract = record.contract
    commands: list[Command] = []
    run_ids: list[int] = []
    joints: NDArray[np.float64] | None = None
    topic = contract.joints.topic
    with BagMessages(path, {topic: JOINT_STATE, COMMAND_TOPIC: COMMAND_TYPE}, {}) as messages:
        for name, _, raw in messages:
            if name == topic:
                msg = messages.deserialize(raw, JOINT_STATE)
                if not any(run_ids) and concerns(contract, JOINTS, msg):
                    joints = joint_state_to_array(msg, contract.joints.names, topic)
                continue
            msg = messages.deserialize(raw, COMMAND_TYPE)
            commands.append(command_from_msg(msg, contract))
            run_ids.append(msg.run_id)
    commands = driven(commands, run_ids)
    if not commands or joints is None:
        raise DataError(f"{path}: nobody drove in the episode, or the arm did not tell where it stood before; nothing "
                        "to replay")
    commands = stretched(commands, speed, contract)
    span_ns = commands[-1].stamp_ns + contract.control_dt_ns - commands[0].stamp_ns
    ticks_ns = commands[0].stamp_ns + np.arange(max(1, round(span_ns / contract.action_dt_ns))) * contract.action_dt_ns
    return RecordedActions(record, action_rows(ticks_ns, commands, contract), joints)


def stretched(commands: Sequence[Command], speed: float, contract: RobotContract) -> list[Command]:
    """The same way in more time: twists become slower, targets come later, and each holds until the next."""
    if speed == 1.0:
        return list(commands)
    first_ns, slower = commands[0].stamp_ns, contract.action.kind is ActionKind.EE_DELTA
    parts = ceil(1.0 / speed)
    gap_ns = round(contract.control_dt_ns / speed / parts)
    return [replace(command, stamp_ns=first_ns + round((command.stamp_ns - first_ns) / speed) + part * gap_ns,
                    arm=command.arm * speed if slower else command.arm)
            for command in commands for part in range(parts)]


def check_fits(
    recorded: RecordedActions, contract: RobotContract, joints: NDArray[np.float64], tolerance: float
) -> None:
    """Refuse another robot, and an arm that stands elsewhere than the recorded one did.

    joints: (J,) of now. tolerance: rad or m, of each. Raises: DataError with what differs, side by side.
    """
    different = contract_differences(recorded.record.contract, contract)
    if different:
        raise DataError(f"the episode was recorded with another contract: {'; '.join(different)}; replay it on the "
                        "robot that it was recorded with")
    off = [f"{name} {here:.3f}, recorded {there:.3f}"
           for name, here, there in zip(contract.joints.names, joints, recorded.joints, strict=True)
           if abs(here - there) > tolerance]
    if off:
        raise DataError(f"the arm does not stand where the episode began, within {tolerance:g}: {'; '.join(off)}; "
                        "bring it there first, or reset the scene")


class Replay:
    """Cuts the rows into chunks, each stamped with its own place on the even grid of the replay.

    slack_ns: how much earlier than its place a state may be stamped that lets a chunk go.
    """

    def __init__(self, recorded: RecordedActions, run_id: int, slack_ns: int) -> None:
        contract = recorded.record.contract
        self._total, self._dt_ns = len(recorded.rows), contract.action_dt_ns
        # What follows the last row until the guard hears of the end is rest, or it would stop for want of rows.
        self._rows = np.concatenate([recorded.rows, np.tile(_rest(recorded.rows[-1], contract), (REACH_ROWS, 1))])
        self._run_id, self._slack_ns = run_id, slack_ns
        self._start_ns: int | None = None
        self.sent_rows = 0

    @property
    def total_rows(self) -> int:
        """How many there are."""
        return self._total

    def poll(self, state_ns: int) -> list[ActionChunk]:
        """The chunks that are due at a state of that stamp; the first state starts the replay."""
        if self._start_ns is None:
            self._start_ns = state_ns
        due = []
        while self.sent_rows < self.total_rows and state_ns + self._slack_ns >= self._at(self.sent_rows):
            first = self.sent_rows
            rows = self._rows[first:first + REACH_ROWS]
            executed = min(EXECUTE_ROWS, self.total_rows - first)
            due.append(ActionChunk(self._at(first), self._dt_ns, rows, executed, self._run_id))
            self.sent_rows += executed
        return due

    def is_over(self, state_ns: int) -> bool:
        """Whether the last row has been done."""
        return self._start_ns is not None and state_ns + self._slack_ns >= self._at(self.total_rows)

    def _at(self, row: int) -> int:
        return self._start_ns + row * self._dt_ns


def _rest(last: NDArray[np.float64], contract: RobotContract) -> NDArray[np.float64]:
    """The row (A,) that stays where `last` led; the gripper stays too."""
    rest = last.copy()
    if contract.action.kind is ActionKind.EE_DELTA:
        rest[:6] = 0.0
    return rest


def words_of(recorded: RecordedActions) -> str:
    """One line on an episode."""
    record = recorded.record
    seconds = len(recorded.rows) * record.contract.action_dt_ns / NS_PER_S
    return f"'{record.instruction}', {len(recorded.rows)} rows, {seconds:.1f} s, {record.outcome}, by {record.driver}"

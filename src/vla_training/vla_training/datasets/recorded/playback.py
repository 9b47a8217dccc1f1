"""A recorded episode in, the samples out that the policy node would have taken: same buffer, same ticks.

The messages are pushed into an ObservationBuffer in the order of their arrival, and a PolicyRun with a policy that only
takes notes steps once every row of the contract's actions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.recorded_rows import driven
from vla_policy.contract import RobotContract
from vla_policy.errors import ContractError, DataError, ObservationError
from vla_policy.execution import PacedPolicy
from vla_policy.messages import command_from_msg
from vla_policy.observation.buffer import ObservationBuffer, Sample, camera_channel, channels_of
from vla_policy.observation.streams import concerns, decode_state, message_types
from vla_policy.recorded_bag import BagMessages, header_stamp_ns
from vla_policy.recording import (
    COMMAND_TOPIC,
    COMMAND_TYPE,
    INTERVENTION_TOPIC,
    INTERVENTION_TYPE,
    EpisodeRecord,
)
from vla_policy.run import PolicyRun, RunEnd, RunRequest
from vla_policy.types import NS_PER_S, Command, Pose

LOST_AFTER_S = 1.0  # without a complete observation the episode has a hole
CLOCK_BACK_S = 0.1  # the buffer's tolerance: what arrives so late is dropped, more is another time
OTHER_CLOCK_S = 10.0  # between a message's stamp and its arrival


@dataclass(frozen=True, slots=True)
class Tick:
    """One sample. tick_ns: its place on the even grid of action periods. asof_ns: the instant it shows.

    images: camera -> (received, stamp) of its message [ns]. held: the sample before it again, its own never came.
    """

    tick_ns: int
    asof_ns: int
    images: dict[str, tuple[int, int]]
    joints: NDArray[np.float64]
    pose: Pose | None
    held: bool


@dataclass(slots=True)
class Playback:
    """What an episode holds. commands: in order of their stamps, from the first to the last that served a run; before
    and after, the guard only holds. interventions: (received [ns], an operator drives).
    """

    ticks: list[Tick] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    interventions: list[tuple[int, bool]] = field(default_factory=list)


class _Notes:
    """Stands where a run expects its policy; keeps the samples."""

    def __init__(self, period_ns: int) -> None:
        self.period_ns = period_ns
        self.timings: dict[str, float] = {}
        self.samples: list[Sample] = []

    def reset(self, instruction: str) -> None:
        self.samples.clear()

    def step(self, observation: _Seen, run_id: int = 1) -> _Seen:
        self.samples.append(observation.sample)
        return observation


@dataclass(frozen=True, slots=True)
class _Seen:
    """Stands where a run expects an observation: a sample that is not decoded yet."""

    sample: Sample

    @property
    def stamp_ns(self) -> int:
        return self.sample.asof_ns


def play(path: Path, record: EpisodeRecord) -> Playback:
    """Play an episode's MCAP file from its start to its stop.

    Raises: DataError naming the file: a topic missing or of another type, a stream that stood still, a clock that went
    back, messages unlike the contract.
    """
    contract = record.contract
    channels = {topic: (channel, kind) for channel, (topic, kind) in message_types(contract).items()}
    expected = {topic: kind for topic, (_, kind) in channels.items()} | {COMMAND_TOPIC: COMMAND_TYPE}
    streams, playback, run_ids = _Streams(path, record), Playback(), []
    with BagMessages(path, expected, {INTERVENTION_TOPIC: INTERVENTION_TYPE}) as messages:
        for topic, received_ns, raw in messages:
            if topic == INTERVENTION_TOPIC:
                playback.interventions.append((received_ns, messages.deserialize(raw, INTERVENTION_TYPE).data))
            elif topic == COMMAND_TOPIC:
                msg = messages.deserialize(raw, COMMAND_TYPE)
                playback.commands.append(_command(path, contract, msg))
                run_ids.append(msg.run_id)
            else:
                channel, kind = channels[topic]
                is_image = channel.startswith(camera_channel(""))
                payload = (received_ns, header_stamp_ns(raw)) if is_image else messages.deserialize(raw, kind)
                streams.push(topic, channel, received_ns, header_stamp_ns(raw), payload)
    playback.ticks = streams.finish()
    playback.commands = driven(playback.commands, run_ids)
    if not playback.commands:
        raise DataError(f"{path}: nobody drove in the episode, the guard held the arm; record while it is driven")
    return playback


class _Streams:
    """Plays the observation's messages into buffer and run, and looks whether time goes as it should."""

    def __init__(self, path: Path, record: EpisodeRecord) -> None:
        contract = record.contract
        self._path, self._record = path, record
        self._buffer = ObservationBuffer(channels_of(contract))
        self._notes = _Notes(contract.action_dt_ns)
        self._slack_ns = 0 if record.pace == "lockstep" else contract.action_dt_ns // 2
        request = RunRequest(1, record.instruction, not_before_ns=record.start_ns)
        self._run = PolicyRun(request, PacedPolicy(self._notes, contract, slack_ns=self._slack_ns), self._buffer, _Seen,
                              contract.cameras, LOST_AFTER_S)
        self._run.begin()
        self._newest_ns: dict[str, int] = {}
        self._now_ns = 0

    def push(self, topic: str, channel: str, received_ns: int, stamp_ns: int, payload: Any) -> None:
        """One message arrived. Raises: DataError."""
        if not concerns(self._record.contract, channel, payload):
            return
        self._check_time(topic, received_ns, stamp_ns)
        self._now_ns = max(self._now_ns, received_ns)
        if self._now_ns > self._record.stop_ns:
            return
        if self._now_ns >= self._record.start_ns:
            self._poll()  # before the message is here: did a live node give up waiting for it?
        self._buffer.push(channel, stamp_ns, payload, self._now_ns)
        if self._now_ns >= self._record.start_ns:
            self._poll()

    def finish(self) -> list[Tick]:
        """The samples on the even grid of ticks; where one is missing the one before it is held."""
        samples, dt_ns = self._notes.samples, self._record.contract.action_dt_ns
        if not samples:
            faults = "; ".join(self._buffer.faults(self._now_ns).values()) or "the streams never met"
            raise DataError(f"{self._path}: no complete observation in the episode: {faults}")
        silent_s = (self._record.stop_ns - samples[-1].asof_ns) / NS_PER_S
        if silent_s > LOST_AFTER_S:
            raise DataError(f"{self._path}: no complete observation in the last {silent_s:.1f} s of the episode; "
                            "record it again, or end it earlier")
        ticks: list[Tick] = []
        for sample in samples:
            place = (sample.asof_ns - samples[0].asof_ns + self._slack_ns) // dt_ns
            while len(ticks) < place:
                ticks.append(replace(ticks[-1], tick_ns=ticks[-1].tick_ns + dt_ns, held=True))
            ticks.append(self._tick(samples[0].asof_ns + place * dt_ns, sample))
        return ticks

    def _poll(self) -> None:
        end = self._run.poll(self._now_ns, self._now_ns)
        if isinstance(end, RunEnd):
            at_s = (self._now_ns - self._record.start_ns) / NS_PER_S
            raise DataError(f"{self._path}: a hole in the episode, {at_s:.1f} s after its start: {end.message}; "
                            "leave the episode out")

    def _check_time(self, topic: str, received_ns: int, stamp_ns: int) -> None:
        newest_ns = self._newest_ns.get(topic, stamp_ns)
        back_s = max(newest_ns - stamp_ns, self._now_ns - received_ns) / NS_PER_S
        if back_s > CLOCK_BACK_S:
            raise DataError(f"{self._path}: {topic}: the clock went back by {back_s:.3f} s; an episode needs one time, "
                            "split the recording there")
        if abs(received_ns - stamp_ns) / NS_PER_S > OTHER_CLOCK_S:
            raise DataError(f"{self._path}: {topic}: stamped {stamp_ns} ns, received at {received_ns} ns, of another "
                            "clock; record with the clock of the streams (use_sim_time)")
        self._newest_ns[topic] = max(newest_ns, stamp_ns)

    def _tick(self, tick_ns: int, sample: Sample) -> Tick:
        contract = self._record.contract
        try:
            joints, pose = decode_state(contract, sample.payloads)
        except ObservationError as problem:
            raise DataError(f"{self._path}: {problem}") from None
        images = {name: sample.payloads[camera_channel(name)] for name in contract.cameras}
        return Tick(tick_ns, sample.asof_ns, images, joints, pose, False)


def _command(path: Path, contract: RobotContract, msg: Any) -> Command:
    try:
        command = command_from_msg(msg, contract)
    except ContractError as problem:
        raise DataError(f"{path}: {COMMAND_TOPIC}: {problem}") from None
    if not np.isfinite(command.arm).all():
        raise DataError(f"{path}: {COMMAND_TOPIC}: got {command.arm.tolist()} at {command.stamp_ns} ns, expected "
                        "finite values")
    return command

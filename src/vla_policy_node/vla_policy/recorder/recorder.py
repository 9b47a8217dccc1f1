"""Messages of a robot and a person's wishes in, recorded episodes out: what the recorder node does, without ROS.

One thread calls everything; nothing here waits. ROS time may be simulated; the steady clock only moves forward.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

from vla_policy.contract import RobotContract
from vla_policy.errors import DataError
from vla_policy.recorder.bag import OpenBag
from vla_policy.recorder.clock import ClockWatch
from vla_policy.recorder.dataset_folder import contract_fault, name_fault, newest_episode, next_name
from vla_policy.recorder.episode_writer import EpisodeWriter
from vla_policy.recorder.meter import EpisodeCount
from vla_policy.recorder.streams import Fault, Stream, StreamTable
from vla_policy.recording import (
    Driver,
    EpisodeRecord,
    Outcome,
    RunningRecord,
    TopicRecord,
    contract_hash,
    recover_command,
)

RESERVE_SHARE = 0.1  # of the space that an episode needs to begin: with less than that it ends while it can be closed


class RecorderState(IntEnum):
    """As vla_msgs/RecordingStatus numbers them."""

    IDLE = 0
    RECORDING = 1
    FINISHING = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """Where and how episodes are recorded. driver: who drives; None: found out from what is heard."""

    output: Path
    pace: Literal["realtime", "lockstep"] = "realtime"
    operator: str = ""
    driver: Driver | None = None
    min_free_bytes: int = 1 << 30
    queue_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a person asks for; empty: by default. time_limit_ns: of the episode, ROS time; 0: none."""

    instruction: str = ""
    operator: str = ""
    task: str = ""
    name: str = ""
    time_limit_ns: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """The scene of a simulator."""

    instruction: str
    task: str
    seed: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """How the last episode ended. number: of those begun, from 1. is_kept: whole, and as it was meant."""

    number: int
    is_kept: bool
    message: str
    path: Path
    outcome: Outcome


@dataclass(slots=True)
class _Episode:
    """The one that is being recorded or closed."""

    running: RunningRecord
    writer: EpisodeWriter
    counts: dict[str, EpisodeCount]
    lost_before: dict[str, int]
    time_limit_ns: int
    policy_drove: bool
    operator_drove: bool
    newest_ns: int
    closing: str = ""  # why it is being closed, in words
    by_fault: bool = False
    is_discarded: bool = False


class Recorder:
    """Records one episode after the other. say(severity, words): for the log.

    state, begun and episodes (kept) since the start, ended (the last one), scene, silent topics: for whoever looks.
    """

    def __init__(self, contract: RobotContract, settings: RecorderSettings, streams: StreamTable, open_bag: OpenBag,
                 say: Callable[[str, str], None], simulated: bool,
                 steady_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._contract, self._settings, self._streams = contract, settings, streams
        self._open_bag, self._say, self._steady_ns = open_bag, say, steady_ns
        self._simulated = simulated
        self._clock = ClockWatch(contract.watchdog.clock_jump_s, simulated)
        self._episode: _Episode | None = None
        self._operator_drives = False
        self.state = RecorderState.IDLE
        self.begun = self.episodes = 0
        self.ended: Ended | None = None
        self.scene: Scene | None = None
        self.silent: list[str] = []

    # ---- what is heard ------------------------------------------------------------------------------------------

    def take(self, name: str, payload: bytes, received_ns: int, source: tuple[bytes, int] | None,
             stamp_ns: int | None) -> None:
        """A message came; see `StreamMeter.take`. received_ns: ROS time."""
        stream, steady_ns = self._streams[name], self._steady_ns()
        stream.meter.take(steady_ns, source, stamp_ns)
        if stream.topic.is_state:
            stream.newest = payload
        if self.state is RecorderState.RECORDING and not self._has_jumped(received_ns, steady_ns):
            is_old = stamp_ns is not None and stamp_ns < self._episode.running.start_ns and stream.sends_history
            if not is_old:
                self._put(self._episode, stream, received_ns, payload)

    def hear_scene(self, scene: Scene, stamp_ns: int) -> None:
        """A simulator's scene was reset. Within an episode that ends it."""
        self.scene = scene
        if self.state is RecorderState.RECORDING and stamp_ns > self._episode.running.start_ns:
            self._close("the scene was reset, which ends the episode")

    def hear_outcome(self, outcome: Outcome, stamp_ns: int) -> None:
        """A simulator says how its task goes."""
        if self.state is RecorderState.RECORDING and stamp_ns >= self._episode.running.start_ns:
            self.mark(outcome)

    def hear_driver(self, operator_drives: bool) -> None:
        """An operator takes over or hands back."""
        self._operator_drives = operator_drives
        if self._episode is not None and operator_drives:
            self._episode.operator_drove = True

    def hear_policy(self) -> None:
        """A policy sent actions."""
        if self._episode is not None and not self._operator_drives:
            self._episode.policy_drove = True

    # ---- what a person wishes -----------------------------------------------------------------------------------

    def faults(self, request: StartRequest, now_ns: int) -> list[Fault]:
        """Why an episode cannot begin now; empty where it can."""
        if self.state in (RecorderState.RECORDING, RecorderState.FINISHING):
            return [Fault(f"{self._episode.writer.folder} is being recorded; stop it first")]
        output, found = self._settings.output, []
        if not self._instruction(request):
            found.append(Fault("instruction: got none, and no simulator names one; say what the robot is to do",
                               may_pass=self._streams.may_hear_scene()))
        if now_ns <= 0:
            found.append(Fault("the clock stands at 0; start the simulator that publishes /clock", True))
        usual: dict[str, TopicRecord] = {}
        try:
            newest = newest_episode(output)
            usual = newest[1].topics if newest is not None else {}
            words = [name_fault(output, request.name) if request.name else None,
                     contract_fault(output, self._contract), disk_fault(output, self._settings.min_free_bytes)]
        except (DataError, OSError) as problem:
            words = [str(problem)]
        found += [Fault(text) for text in words if text]
        return found + self._streams.faults(self._steady_ns(), self._settings.pace == "lockstep", usual)

    def begin(self, request: StartRequest, now_ns: int) -> Path:
        """Begin an episode that has no `faults`. Raises: DataError where its folder cannot be made."""
        settings, scene = self._settings, self.scene or Scene("", "", None)
        running = RunningRecord(
            contract=self._contract, instruction=self._instruction(request), start_ns=now_ns, pace=settings.pace,
            operator=request.operator or settings.operator, driver=settings.driver or "operator",
            task=request.task or scene.task, seed=scene.seed)
        folder = settings.output / (request.name or next_name(settings.output))
        try:
            writer = EpisodeWriter(folder, self._open_bag, running, settings.queue_bytes,
                                   round(RESERVE_SHARE * settings.min_free_bytes))
        except (OSError, RuntimeError) as problem:
            raise DataError(f"{folder}: cannot be made: {problem}") from None
        lost_before = {stream.topic.name: stream.meter.lost for stream in self._streams}
        self._episode = _Episode(running, writer, {}, lost_before, request.time_limit_ns, False, self._operator_drives,
                                 now_ns)
        self._clock = ClockWatch(self._contract.watchdog.clock_jump_s, self._simulated)
        self.state, self.silent = RecorderState.RECORDING, []
        self.begun += 1
        for stream in self._streams:
            if stream.newest is not None and stream.type:
                self._put(self._episode, stream, now_ns, stream.newest)
        self._say("info", f"recording {folder}: '{running.instruction}'")
        return folder

    def mark(self, outcome: Outcome) -> None:
        """Say how the episode that is being recorded goes; the last word counts."""
        episode = self._episode
        episode.running = episode.running.model_copy(update={"outcome": outcome})
        episode.writer.note(episode.running)
        self._say("info", f"{episode.writer.folder.name}: {outcome}")

    def stop(self, now_ns: int, outcome: Outcome = "unknown", discard: bool = False, note: str = "") -> None:
        """End the episode. outcome: unknown leaves it as it was marked."""
        if outcome != "unknown":
            self.mark(outcome)
        episode = self._episode
        episode.newest_ns = max(now_ns, episode.newest_ns)
        if note:
            episode.running = episode.running.model_copy(update={"note": _joined(episode.running.note, note)})
        self._close("", discard=discard)

    def tick(self, now_ns: int) -> None:
        """Look after the episode; call it some ten times a second."""
        episode = self._episode
        if self.state is RecorderState.RECORDING:
            steady_ns = self._steady_ns()
            if episode.writer.is_done:
                self._conclude()
            elif episode.writer.nearly_full:
                self._close("the disk is nearly full, which ends the episode; make room", by_fault=True)
            elif not self._has_jumped(now_ns, steady_ns):
                self.silent = self._streams.watch(steady_ns, self._say)
                if episode.time_limit_ns and now_ns - episode.running.start_ns >= episode.time_limit_ns:
                    self._close("the time limit ends the episode")
        elif self.state is RecorderState.FINISHING and episode.writer.is_done:
            self._conclude()

    # ---- for the status -----------------------------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """Folder of this episode, or of the last one."""
        if self._episode is not None:
            return self._episode.writer.folder
        return self.ended.path if self.ended is not None else None

    @property
    def running(self) -> RunningRecord | None:
        """What is known of the episode that is being recorded or closed."""
        return self._episode.running if self._episode is not None else None

    def elapsed_ns(self) -> int:
        """ROS time from the start of the episode to its newest message."""
        episode = self._episode
        return episode.newest_ns - episode.running.start_ns if episode is not None else 0

    def written(self) -> tuple[int, int, int]:
        """Messages and bytes written, and messages lost, of the episode."""
        if self._episode is None:
            return 0, 0, 0
        return (self._episode.writer.messages, self._episode.writer.bytes,
                sum(record.dropped for record in self._records().values()))

    # ---- within -------------------------------------------------------------------------------------------------

    def _instruction(self, request: StartRequest) -> str:
        return (request.instruction or (self.scene.instruction if self.scene is not None else "")).strip()

    def _has_jumped(self, now_ns: int, steady_ns: int) -> bool:
        """Whether ROS time jumped; it ends the episode, and what came before is kept."""
        words = self._clock.jump(now_ns, steady_ns)
        if words is not None:
            self._close(f"{words}, which ends the episode", by_fault=True)
            return True
        self._episode.newest_ns = max(self._episode.newest_ns, now_ns)
        return False

    def _put(self, episode: _Episode, stream: Stream, received_ns: int, payload: bytes) -> None:
        name = stream.topic.name
        count = episode.counts.get(name)
        if count is None:
            count = episode.counts[name] = EpisodeCount(stream.in_bag(), episode.lost_before[name])
        if episode.writer.put(count.topic, received_ns, payload):
            count.take(received_ns)
        else:
            count.refused += 1

    def _records(self) -> dict[str, TopicRecord]:
        return {name: count.record(self._streams[name].meter.lost) for name, count in self._episode.counts.items()}

    def _close(self, why: str, by_fault: bool = False, discard: bool = False) -> None:
        episode = self._episode
        episode.closing, episode.by_fault, episode.is_discarded = why, by_fault, discard
        self.state = RecorderState.FINISHING
        if discard:
            episode.writer.discard()
            return
        running = episode.running.model_copy(update={"driver": self._driver(),
                                                     "note": _joined(episode.running.note, why)})
        stop_ns = max(episode.newest_ns, running.start_ns + 1)
        episode.writer.finish(EpisodeRecord(**dict(running), contract_hash=contract_hash(running.contract),
                                            stop_ns=stop_ns, topics=self._records()))

    def _driver(self) -> Driver:
        episode = self._episode
        if self._settings.driver is not None or not episode.policy_drove:
            return episode.running.driver
        return "shared" if episode.operator_drove else "policy"

    def _conclude(self) -> None:
        """The writer's thread has ended: by itself, or because it was told to."""
        episode, self._episode = self._episode, None
        folder, outcome = episode.writer.folder, episode.running.outcome
        failure = episode.writer.failure
        if failure:
            why = "; ".join(filter(None, (episode.closing, failure)))
            words = f"writing failed: {why}; what was written can be recovered: {recover_command(folder)}"
        elif episode.is_discarded:
            words = f"{folder.name} was discarded"
        else:
            lost = sum(count.refused for count in episode.counts.values())
            words = f"{folder.name} is kept ({outcome}, {episode.writer.messages} messages" + (
                f", {lost} lost because the disk is slow" if lost else "") + ")"
            words = "; ".join(filter(None, (episode.closing, words)))
            self.episodes += 1
        is_fault = bool(failure) or episode.by_fault
        self.state = RecorderState.FAILED if is_fault else RecorderState.IDLE
        self.ended = Ended(self.begun, not is_fault and not episode.is_discarded, words, folder, outcome)
        self.silent = []
        self._say("error" if is_fault else "info", words)


def disk_fault(output: Path, min_free_bytes: int) -> str | None:
    """Why nothing can be written into a folder, which may not exist yet; None where it can."""
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return f"output: {existing} is no folder that may be written to; choose another"
    free = shutil.disk_usage(existing).free
    if free < min_free_bytes:
        return (f"disk: {free / 1e6:.0f} MB are free at {existing}, expected at least {min_free_bytes / 1e6:.0f} MB "
                "(min_free_mb); make room or choose another output")
    return None


def describe(faults: list[Fault]) -> str:
    """All of them in one sentence."""
    return "not recording: " + "; ".join(fault.text for fault in faults)


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


"""Buffered observations in, action chunks out, until an end with a numbered reason: one run of a policy.

The first complete observation starts the run, then the policy steps as its execution mode wants it, by default every
`policy.period_ns`. It reads no clock; the caller says what time it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from vla_policy.errors import InstructionError, ObservationError
from vla_policy.execution import PacedPolicy
from vla_policy.observation.buffer import ObservationBuffer, ObservationIncomplete, Sample, camera_channel
from vla_policy.types import NS_PER_S, ActionChunk, Observation, seconds_to_ns

FIRST_OBSERVATION_S = 5.0  # a run that has not begun to move may wait longer for its streams


class EndReason(IntEnum):
    """Why a run ended; the numbers of RunPolicy.action."""

    SUCCEEDED = 0
    TIME_LIMIT = 1
    CANCELED = 2
    SAFETY_STOP = 3
    OBSERVATION_LOST = 4
    INSTRUCTION_REFUSED = 5
    FAILED = 6
    POLICY_ERROR = 7
    DEACTIVATED = 8
    OBSERVATION_INVALID = 9


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run: the numbered reason and one sentence."""

    reason: EndReason
    message: str


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run shall do. Times are ROS time [ns].

    time_limit_ns: 0 for none. not_before_ns: of observations, 0 for any fresh one.
    """

    run_id: int
    instruction: str
    time_limit_ns: int = 0
    not_before_ns: int = 0


class SteppedPolicy(Protocol):
    """The part of vla_policy.policy.Policy that a run needs."""

    period_ns: int
    timings: dict[str, float]

    def reset(self, instruction: str) -> None:
        """Forget the history and take a new instruction."""

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """One inference."""


@dataclass(slots=True)
class RunProgress:
    """How far a run is; read by the node for status and feedback."""

    inferences: int = 0
    first_ns: int | None = None
    observation_ns: int = 0
    waiting_for: str = ""
    oldest_image_ns: int = 0
    image_age_ns: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def elapsed_ns(self) -> int:
        """ROS time from the first to the newest observation used, or to that which reached the time limit [ns]."""
        return 0 if self.first_ns is None else self.observation_ns - self.first_ns


class PolicyRun:
    """One run. Call `poll` whenever something new may have arrived; it returns a chunk, an end, or None to wait.

    Of a chunk send what `release` makes of it.
    decode: turns a buffer Sample into an Observation; raises ObservationError for what the contract does not allow.
    cameras: names of the cameras the policy looks through.
    lost_after_s: steady time without a complete observation after which the run ends; at least FIRST_OBSERVATION_S
        before the first one.
    """

    def __init__(self, request: RunRequest, paced: PacedPolicy, buffer: ObservationBuffer,
                 decode: Callable[[Sample], Observation], cameras: Iterable[str], lost_after_s: float) -> None:
        self.request = request
        self.progress = RunProgress()
        self._paced = paced
        self._buffer = buffer
        self._decode = decode
        self._cameras = [camera_channel(name) for name in cameras]
        self._notice_ns = paced.policy.period_ns + paced.slack_ns
        self._lost_after_ns = seconds_to_ns(lost_after_s)
        self._last_seen_steady_ns: int | None = None
        self._new_episode_ns = 0

    def begin(self) -> RunEnd | None:
        """Reset policy and history for the instruction; an end if the policy cannot read it."""
        try:
            self._paced.reset(self.request.instruction)
        except InstructionError as problem:
            return RunEnd(EndReason.INSTRUCTION_REFUSED, str(problem))
        if self.request.not_before_ns:
            self._buffer.start_episode(self.request.not_before_ns)
        return None

    def begin_episode(self, not_before_ns: int) -> None:
        """The scene was reset in the middle of the run: at the next poll the policy forgets all that is older.

        May be called from another thread than `poll`.
        """
        self._new_episode_ns = not_before_ns

    def poll(self, now_ns: int, steady_ns: int) -> ActionChunk | RunEnd | None:
        """The next chunk if its observation is there. `now_ns`: ROS time; `steady_ns`: a monotonic clock."""
        if self._last_seen_steady_ns is None:
            self._last_seen_steady_ns = steady_ns
        if self._new_episode_ns:
            self._forget()
        complete_ns = self._buffer.latest_complete_ns()
        if not self._is_due(complete_ns) or self._is_behind_the_images(complete_ns):
            return self._wait(now_ns, steady_ns)
        if self._is_over(complete_ns):
            self.progress.observation_ns = complete_ns
            return RunEnd(EndReason.TIME_LIMIT, f"the time limit of {self.request.time_limit_ns / NS_PER_S:g} s passed")
        # In simulated time an observation may overtake the clock; it is not late for that.
        if self._buffer.faults(max(now_ns, complete_ns)):
            return self._wait(now_ns, steady_ns)
        try:
            sample = self._buffer.sample(complete_ns)
        except ObservationIncomplete:
            return self._wait(now_ns, steady_ns)
        try:
            observation, decode_ms = _timed(self._decode, sample)
        except ObservationError as problem:
            return RunEnd(EndReason.OBSERVATION_INVALID, str(problem))
        self._last_seen_steady_ns = steady_ns
        chunk = self._paced.step(observation, self.request.run_id)
        self._note_step(sample, now_ns, decode_ms)
        return chunk

    def release(self, chunk: ActionChunk, now_ns: int) -> ActionChunk:
        """What is to be sent of the chunk that `poll` returned. now_ns: ROS time after the inference."""
        self._last_seen_steady_ns = None  # patience begins where the robot has something to do again
        return self._paced.release(chunk, now_ns)

    def _forget(self) -> None:
        not_before_ns, self._new_episode_ns = self._new_episode_ns, 0
        self._buffer.start_episode(not_before_ns)
        self._paced.reset(self.request.instruction)

    def _is_due(self, complete_ns: int | None) -> bool:
        if complete_ns is None or complete_ns < self.request.not_before_ns:
            return False
        return self._paced.is_due(complete_ns)

    def _is_behind_the_images(self, complete_ns: int) -> bool:
        """Whether new images are here and only wait for the robot's state of their instant: without them the
        observation would be a camera's period old. Within the slack of the tick the state has time to come.
        """
        images_ns = self._buffer.newest_ns(self._cameras)
        return images_ns is not None and images_ns > complete_ns and self._paced.may_wait(complete_ns)

    def _is_over(self, complete_ns: int) -> bool:
        limit_ns, first_ns = self.request.time_limit_ns, self.progress.first_ns
        return bool(limit_ns) and first_ns is not None and complete_ns + self._paced.slack_ns >= first_ns + limit_ns

    def _oldest_image_ns(self, sample: Sample) -> int:
        return min((sample.stamps_ns[camera] for camera in self._cameras), default=sample.asof_ns)

    def _note_step(self, sample: Sample, now_ns: int, decode_ms: float) -> None:
        progress, complete_ns = self.progress, sample.asof_ns
        if progress.first_ns is None:
            progress.first_ns = complete_ns
        progress.observation_ns = complete_ns
        progress.inferences += 1
        progress.waiting_for = ""
        progress.oldest_image_ns = self._oldest_image_ns(sample)
        progress.image_age_ns = now_ns - progress.oldest_image_ns
        progress.timings_ms = {"decode": decode_ms, **self._paced.policy.timings}

    def _wait(self, now_ns: int, steady_ns: int) -> RunEnd | None:
        silent_ns = steady_ns - self._last_seen_steady_ns
        if silent_ns < self._notice_ns:
            return None
        faults = self._buffer.faults(now_ns)
        self.progress.waiting_for = "; ".join(faults.values()) or "the streams are fresh but stand still"
        patience_ns = self._lost_after_ns
        if not self.progress.inferences:
            patience_ns = max(patience_ns, seconds_to_ns(FIRST_OBSERVATION_S))
        if silent_ns < patience_ns:
            return None
        return RunEnd(EndReason.OBSERVATION_LOST,
                      f"no complete observation for {silent_ns / NS_PER_S:.1f} s: {self.progress.waiting_for}")


def _timed(function: Callable[[Sample], Observation], sample: Sample) -> tuple[Observation, float]:
    start = time.perf_counter()
    result = function(sample)
    return result, (time.perf_counter() - start) * 1e3

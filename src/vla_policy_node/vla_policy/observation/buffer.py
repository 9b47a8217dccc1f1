"""Stamped samples of every channel in, one complete and fresh sample as of an instant out.

Payloads are opaque: callbacks push messages as they come, the worker decodes only those it samples.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vla_policy.contract import RobotContract
from vla_policy.errors import ObservationError, nearest
from vla_policy.types import NS_PER_S, seconds_to_ns

Ring = deque[tuple[int, Any]]  # stamp_ns, payload; stamps increase
JOINTS = "joints"
POSE = "pose"


def camera_channel(name: str) -> str:
    """Channel name of the contract's camera `name`."""
    return f"camera.{name}"


@dataclass(frozen=True, slots=True)
class Channel:
    """A stream that every observation needs. `max_age_ns`: how old its sample may be at the sampled time."""

    name: str
    topic: str
    max_age_ns: int


def channels_of(contract: RobotContract) -> tuple[Channel, ...]:
    """The channels of a contract: cameras, joints and, where there is one, the pose."""
    streams = {camera_channel(name): camera for name, camera in contract.cameras.items()}
    streams[JOINTS] = contract.joints
    if contract.pose is not None:
        streams[POSE] = contract.pose
    return tuple(Channel(name, stream.topic, seconds_to_ns(stream.max_age_s))
                 for name, stream in streams.items())


class Reason(StrEnum):
    """Why a sample was not stored."""

    ZERO_STAMP = "zero_stamp"
    BEFORE_EPISODE = "before_episode"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out_of_order"
    FUTURE = "future"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A sample that was not stored; `message` says why and what to do."""

    channel: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of every channel, none newer than `asof_ns`. Keys of the mappings are channel names."""

    asof_ns: int
    payloads: Mapping[str, Any]
    stamps_ns: Mapping[str, int]


class ObservationIncomplete(ObservationError):
    """Some channels have no fresh sample. `faults`: channel name -> what is wrong with it, in words."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(faults.values()))
        self.faults = dict(faults)


class ObservationBuffer:
    """Rings of stamped samples, one per channel. Thread-safe: callbacks push while a worker samples.

    A ring keeps what an as-of sample may still need, twice the largest max age, and at most `capacity`
    samples. `future_tolerance_s`: how far a stamp may lie ahead of `now_ns`. With simulated time it must
    exceed the clock's step, because a sensor message may overtake the /clock message of the same instant.
    """

    def __init__(self, channels: Iterable[Channel], capacity: int = 4096,
                 future_tolerance_s: float = 0.1) -> None:
        self._channels = {channel.name: channel for channel in channels}
        if not self._channels or capacity < 1 or future_tolerance_s < 0:
            raise ObservationError(f"got {len(self._channels)} channels, capacity {capacity}, tolerance "
                                   f"{future_tolerance_s} s; expected at least 1 channel, 1 sample, 0 s")
        self._tolerance_ns = seconds_to_ns(future_tolerance_s)
        longest_ns = max(channel.max_age_ns for channel in self._channels.values())
        self._keep_ns = 2 * longest_ns + self._tolerance_ns
        self._rings: dict[str, Ring] = {name: deque(maxlen=capacity) for name in self._channels}
        self._rejected = {name: Counter[Reason]() for name in self._channels}
        self._not_before_ns = 0
        self._now_ns = 0  # of the newest push
        self._lock = threading.Lock()

    def push(self, channel: str, stamp_ns: int, payload: Any, now_ns: int) -> Rejection | None:
        """Store a sample, or count and return why not. `now_ns`: ROS time at which it arrived.

        When that time jumped back, by more than the tolerance, everything stored before is forgotten.
        """
        if channel not in self._rings:
            raise KeyError(f"channel '{channel}': {nearest(channel, self._rings)}")
        with self._lock:
            if now_ns < self._now_ns - self._tolerance_ns:
                for other in self._rings.values():
                    other.clear()
            self._now_ns = now_ns
            ring = self._rings[channel]
            reason = self._refuse(stamp_ns, ring[-1][0] if ring else None, now_ns)
            if reason is None:
                ring.append((stamp_ns, payload))
                while ring[0][0] < stamp_ns - self._keep_ns:
                    ring.popleft()
                return None
            self._rejected[channel][reason] += 1
            newest_ns, not_before_ns = ring[-1][0] if ring else 0, self._not_before_ns
        words = _explain(reason, stamp_ns, newest_ns, not_before_ns, now_ns)
        return Rejection(channel, reason, f"{channel} on {self._channels[channel].topic}: {words}")

    def _refuse(self, stamp_ns: int, newest_ns: int | None, now_ns: int) -> Reason | None:
        if stamp_ns <= 0:
            return Reason.ZERO_STAMP
        if stamp_ns < self._not_before_ns:
            return Reason.BEFORE_EPISODE
        if stamp_ns > now_ns + self._tolerance_ns:
            return Reason.FUTURE
        if newest_ns is not None and stamp_ns <= newest_ns:
            return Reason.DUPLICATE if stamp_ns == newest_ns else Reason.OUT_OF_ORDER
        return None

    def start_episode(self, not_before_ns: int) -> None:
        """Forget every sample stamped before `not_before_ns` and refuse such samples from now on."""
        with self._lock:
            self._not_before_ns = not_before_ns
            for ring in self._rings.values():
                while ring and ring[0][0] < not_before_ns:
                    ring.popleft()

    def latest_complete_ns(self) -> int | None:
        """The newest instant that every channel has reached [ns], or None while a channel is empty."""
        with self._lock:
            if not all(self._rings.values()):
                return None
            return min(ring[-1][0] for ring in self._rings.values())

    def newest_ns(self, channels: Iterable[str]) -> int | None:
        """The newest instant that all of these channels have reached [ns]; None while one is empty, or of none."""
        with self._lock:
            rings = [self._rings[name] for name in channels]
            return min(ring[-1][0] for ring in rings) if rings and all(rings) else None

    def sample(self, asof_ns: int) -> Sample:
        """The newest sample of every channel that is not newer than `asof_ns`.

        Raises: ObservationIncomplete naming every channel that has none or only one older than its max age.
        """
        with self._lock:
            found = {name: _newest_until(ring, asof_ns) for name, ring in self._rings.items()}
        faults = self._judge(found, asof_ns)
        if faults:
            raise ObservationIncomplete(faults)
        return Sample(asof_ns, {name: item[1] for name, item in found.items() if item},
                      {name: item[0] for name, item in found.items() if item})

    def faults(self, now_ns: int) -> dict[str, str]:
        """Channels without a fresh sample at `now_ns` -> what is wrong, in words; empty when all is well."""
        with self._lock:
            found = {name: _newest_until(ring, now_ns) for name, ring in self._rings.items()}
        return self._judge(found, now_ns)

    def rejected(self) -> dict[str, dict[Reason, int]]:
        """How many samples of each channel were rejected for each reason, since the buffer was built."""
        with self._lock:
            return {name: dict(counts) for name, counts in self._rejected.items()}

    def _judge(self, found: Mapping[str, tuple[int, Any] | None], asof_ns: int) -> dict[str, str]:
        faults = {}
        for name, item in found.items():
            channel = self._channels[name]
            place = f"{name}: expected a message on {channel.topic} within {_s(channel.max_age_ns)} s"
            if item is None:
                faults[name] = f"{place}, got none; is its driver running?"
            elif asof_ns - item[0] > channel.max_age_ns:
                age_ns = asof_ns - item[0]
                faults[name] = f"{place}, got one {_s(age_ns)} s old; check its driver and its clock"
        return faults


def _newest_until(ring: Ring, asof_ns: int) -> tuple[int, Any] | None:
    return next((item for item in reversed(ring) if item[0] <= asof_ns), None)


def _explain(reason: Reason, stamp_ns: int, newest_ns: int, not_before_ns: int, now_ns: int) -> str:
    if reason is Reason.ZERO_STAMP:
        return "header.stamp is not set; make its driver stamp each message with the time of capture"
    if reason is Reason.BEFORE_EPISODE:
        return f"stamped {_s(not_before_ns - stamp_ns)} s before the episode began"
    if reason is Reason.FUTURE:
        return f"stamped {_s(stamp_ns - now_ns)} s ahead of now; set both machines' clocks by chrony or PTP"
    if reason is Reason.DUPLICATE:
        return f"stamped as the sample before it ({_s(stamp_ns)} s); is there more than one publisher?"
    return (f"stamped {_s(newest_ns - stamp_ns)} s before the sample that came earlier; "
            "is there more than one publisher?")


def _s(duration_ns: int) -> str:
    return f"{duration_ns / NS_PER_S:.3f}"

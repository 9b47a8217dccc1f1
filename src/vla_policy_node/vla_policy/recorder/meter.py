"""Arrivals of messages in; their rate, how long they are silent, and how many were lost on their way, out."""

from __future__ import annotations

from collections import deque
from statistics import median

from vla_policy.recorder.bag import BagTopic
from vla_policy.recording import TopicRecord
from vla_policy.types import NS_PER_S

WINDOW_S = 2.0  # over which the present rate is taken
_WINDOW_MESSAGES = 500
_PERIODS = 15  # of stamps whose median is a stream's period
_GAP = 1.75  # periods between two stamps from which on a message is taken for lost


class StreamMeter:
    """One topic as long as the node lives. Steady times [ns].

    The middleware numbers the messages of each publisher, so a gap is a loss, exactly. Where it does not number them,
    losses are estimated from gaps between header stamps.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.newest_steady_ns: int | None = None
        self._arrivals_ns: deque[int] = deque(maxlen=_WINDOW_MESSAGES)
        self._numbers: dict[bytes, int] = {}
        self._stamp_ns: int | None = None
        self._periods_ns: deque[int] = deque(maxlen=_PERIODS)

    def take(self, steady_ns: int, source: tuple[bytes, int] | None, stamp_ns: int | None) -> None:
        """A message came. source: its publisher and number. stamp_ns: in its header; None: it has none."""
        self.newest_steady_ns = steady_ns
        self._arrivals_ns.append(steady_ns)
        if source is not None:
            self._count_numbers(*source)
        elif stamp_ns is not None:
            self._count_stamps(stamp_ns)

    def rate_hz(self, steady_ns: int) -> float | None:
        """Messages a second over the last WINDOW_S; None where too few came to say."""
        recent = [arrival for arrival in self._arrivals_ns if steady_ns - arrival <= WINDOW_S * NS_PER_S]
        if len(recent) < 2 or recent[-1] == recent[0]:
            return None
        return (len(recent) - 1) * NS_PER_S / (recent[-1] - recent[0])

    def silent_s(self, steady_ns: int) -> float | None:
        """Time since the newest message [s]; None before the first."""
        return None if self.newest_steady_ns is None else (steady_ns - self.newest_steady_ns) / NS_PER_S

    def _count_numbers(self, publisher: bytes, number: int) -> None:
        before = self._numbers.get(publisher)
        if before is not None and number > before + 1:
            self.lost += number - before - 1
        self._numbers[publisher] = number

    def _count_stamps(self, stamp_ns: int) -> None:
        before, self._stamp_ns = self._stamp_ns, stamp_ns
        if before is None or stamp_ns <= before:
            return
        gap_ns = stamp_ns - before
        if len(self._periods_ns) == _PERIODS:
            period_ns = median(self._periods_ns)
            if gap_ns > _GAP * period_ns:
                self.lost += round(gap_ns / period_ns) - 1
        self._periods_ns.append(gap_ns)


class EpisodeCount:
    """One topic during one episode. Receive times are ROS time [ns]."""

    def __init__(self, topic: BagTopic, lost_before: int) -> None:
        self.topic = topic
        self.messages = self.refused = 0
        self._lost_before = lost_before
        self._first_ns = self._last_ns = 0

    def take(self, received_ns: int) -> None:
        """A message goes into the bag."""
        if not self.messages:
            self._first_ns = received_ns
        self._last_ns = received_ns
        self.messages += 1

    def record(self, lost: int) -> TopicRecord:
        """What the episode tells of the topic; `lost` as the stream's meter counts it now."""
        passed_ns = self._last_ns - self._first_ns
        rate_hz = (self.messages - 1) * NS_PER_S / passed_ns if passed_ns > 0 else 0.0
        return TopicRecord(type=self.topic.definition.type, messages=self.messages, rate_hz=round(rate_hz, 3),
                           dropped=self.refused + max(0, lost - self._lost_before))

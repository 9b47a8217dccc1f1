"""Topics, their publishers and their messages in; whether an episode may begin, and which topic fell silent, out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vla_policy.errors import ConfigError
from vla_policy.recorder.bag import BagTopic, OfferedQos
from vla_policy.recorder.definitions import definition_of
from vla_policy.recorder.meter import StreamMeter
from vla_policy.recorder.topics import SCENE_TOPIC, Need, RecordedTopic
from vla_policy.recording import COMMAND_TOPIC, TopicRecord

ALIVE_S = 1.0  # beyond its max_age_s a topic without a message for so long is silent; a waiting simulator takes 0.5 s
USUAL_SHARE = 0.5  # of a topic's rate in the folder's last episode: slower is a fault
_STARTS = {COMMAND_TOPIC: "start guard_node: what the robot is sent belongs into an episode",
           "/clock": "start the simulator, or record with use_sim_time:=false"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an episode cannot begin, in words. may_pass: waiting may cure it."""

    text: str
    may_pass: bool = False


@dataclass(slots=True)
class Stream:
    """What is known of a topic.

    types: of its publishers, also when they left. offered: by the present ones. is_connected: the recorder hears one.
    newest: last message, of a state.
    """

    topic: RecordedTopic
    meter: StreamMeter = field(default_factory=StreamMeter)
    types: tuple[str, ...] = ()
    offered: tuple[OfferedQos, ...] = ()
    is_connected: bool = False
    newest: bytes | None = None
    is_silent: bool = False

    @property
    def type(self) -> str:
        """Of its messages; empty while unknown."""
        return self.topic.type or (self.types[0] if len(self.types) == 1 else "")

    @property
    def silent_after_s(self) -> float:
        """Time without a message after which it has ceased [s]."""
        return ALIVE_S + (self.topic.max_age_s or 0.0)

    @property
    def sends_history(self) -> bool:
        """Whether who begins to listen first hears what was sent before, which is more than a state."""
        return not self.topic.is_state and bool(self.offered) and all(one.transient_local for one in self.offered)

    def in_bag(self) -> BagTopic:
        """How a bag announces it. Raises: ConfigError where its type is not installed."""
        return BagTopic(self.topic.name, definition_of(self.type), self.offered)


class StreamTable:
    """All topics of an episode."""

    def __init__(self, topics: Sequence[RecordedTopic]) -> None:
        self._streams = {topic.name: Stream(topic) for topic in topics}

    def __getitem__(self, name: str) -> Stream:
        return self._streams[name]

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def faults(self, steady_ns: int, is_paced: bool, usual: Mapping[str, TopicRecord]) -> list[Fault]:
        """What keeps an episode from beginning. is_paced: simulated time waits, rates say nothing.

        usual: topics of the last episode in the folder.
        """
        return [fault for stream in self for fault in _faults_of(stream, steady_ns, is_paced, usual)]

    def may_hear_scene(self) -> bool:
        """Whether a simulator, or a robot that is still coming up, may yet name a scene."""
        needed = [stream for stream in self if stream.topic.need is not Need.NONE]
        return bool(self[SCENE_TOPIC].offered) or not all(stream.offered for stream in needed)

    def watch(self, steady_ns: int, say: Callable[[str, str], None]) -> list[str]:
        """The topics that must be alive and are silent; `say(severity, words)` once when one ceases or comes again."""
        silent = []
        for stream in self:
            silent_s = stream.meter.silent_s(steady_ns)
            if stream.topic.need is not Need.ALIVE or silent_s is None:
                continue
            is_silent = silent_s > stream.silent_after_s
            if is_silent and not stream.is_silent:
                say("error", f"{stream.topic.name}: no message for {silent_s:.1f} s; the episode has a hole there")
            elif stream.is_silent and not is_silent:
                say("info", f"{stream.topic.name}: messages come again")
            stream.is_silent = is_silent
            silent += [stream.topic.name] if is_silent else []
        return silent


def _faults_of(stream: Stream, steady_ns: int, is_paced: bool, usual: Mapping[str, TopicRecord]) -> Iterator[Fault]:
    topic = stream.topic
    for kind in stream.types:
        if topic.type and kind != topic.type:
            yield Fault(f"{topic.name}: its publisher sends {kind}, expected {topic.type}; correct contract or driver")
            return
    if len(stream.types) > 1:
        yield Fault(f"{topic.name}: its publishers send {' and '.join(stream.types)}, expected one type; end one")
        return
    if stream.type:
        try:
            definition_of(stream.type)
        except ConfigError as problem:
            yield Fault(str(problem))
    if topic.need is not Need.NONE and not stream.offered:
        yield Fault(f"{topic.name}: nobody publishes it; {_STARTS.get(topic.name, 'start its driver')}", True)
    elif topic.need is Need.OFFERED and not stream.is_connected:
        yield Fault(f"{topic.name}: its publisher is not connected yet; try again in a moment", True)
    elif topic.need is Need.ALIVE:
        yield from _slow(stream, steady_ns, is_paced, usual)


def _slow(stream: Stream, steady_ns: int, is_paced: bool, usual: Mapping[str, TopicRecord]) -> Iterator[Fault]:
    name = stream.topic.name
    silent_s = stream.meter.silent_s(steady_ns)
    if silent_s is None or silent_s > stream.silent_after_s:
        since = "yet" if silent_s is None else f"for {silent_s:.1f} s"
        yield Fault(f"{name}: it has a publisher, but no message came {since}; look at its driver", True)
        return
    if is_paced or stream.topic.max_age_s is None:
        return
    rate_hz, least_hz = stream.meter.rate_hz(steady_ns), 1.0 / stream.topic.max_age_s
    if rate_hz is None or rate_hz < least_hz:
        got = "one message" if rate_hz is None else f"{rate_hz:.1f} Hz"
        words = f"{name}: got {got}, expected at least {least_hz:.1f} Hz by its max_age_s; look at its driver"
        yield Fault(words, True)
    elif name in usual and rate_hz < USUAL_SHARE * usual[name].rate_hz:
        yield Fault(f"{name}: got {rate_hz:.1f} Hz, expected about the {usual[name].rate_hz:.1f} Hz of the last "
                    "episode in this folder; look at its driver, or record into another folder", True)

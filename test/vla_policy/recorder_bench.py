"""A contract in; a Recorder with its streams offered, its clocks in hand, and messages to feed it, out."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from make_bags import START_NS, Motion, messages, tabletop, types
from rosbags.rosbag2 import Reader

from vla_policy.contract import RobotContract
from vla_policy.recorded_bag import header_stamp_ns
from vla_policy.recorder.bag import OfferedQos, OpenBag, RosbagsWriter
from vla_policy.recorder.recorder import Recorder, RecorderSettings, RecorderState, StartRequest
from vla_policy.recorder.streams import StreamTable
from vla_policy.recorder.topics import Need, recorded_topics
from vla_policy.types import NS_PER_S

CONTRACT = tabletop(8)
DEADLINE_S = 60.0
WISH = StartRequest("push the button", "Ada")


class Bench:
    """`recorder` at ROS time `now_ns`; the steady clock goes with it unless it jumps. said: (severity, words)."""

    def __init__(self, output: Path, open_bag: OpenBag = RosbagsWriter, contract: RobotContract = CONTRACT,
                 simulated: bool = False, **settings: Any) -> None:
        self.contract, self.now_ns, self.steady_ns = contract, START_NS, 7 * NS_PER_S
        self.said: list[tuple[str, str]] = []
        self.streams = StreamTable(recorded_topics(contract, simulated))
        settings = {"output": output, "min_free_bytes": 0} | settings
        self.recorder = Recorder(contract, RecorderSettings(**settings), self.streams, open_bag,
                                 lambda severity, words: self.said.append((severity, words)), simulated,
                                 lambda: self.steady_ns)
        for stream in self.streams:
            if stream.topic.need is not Need.NONE:
                self.offer(stream.topic.name)
        self._numbers: dict[str, int] = {}

    def offer(self, name: str, kind: str = "", **qos: bool) -> None:
        """Somebody publishes a topic."""
        stream = self.streams[name]
        stream.types, stream.offered = (kind or stream.topic.type,), (OfferedQos(**qos),)
        stream.is_connected = True

    def advance(self, seconds: float, jump_s: float = 0.0) -> None:
        """Time passes; ROS time `jump_s` more than the steady clock."""
        self.steady_ns += round(seconds * NS_PER_S)
        self.now_ns += round((seconds + jump_s) * NS_PER_S)

    def hear(self, name: str, payload: bytes, lost: int = 0) -> None:
        """A message comes now, after `lost` others that did not."""
        self._numbers[name] = self._numbers.get(name, 0) + 1 + lost
        self.recorder.take(name, payload, self.now_ns, (b"one", self._numbers[name]), self.now_ns)

    def play(self, motion: Motion | None = None, without: tuple[str, ...] = ()) -> None:
        """All messages of a motion (default: a second), from now on."""
        motion = motion or Motion(seconds=1.0)
        begin_ns = self.now_ns
        for received_ns, topic, msg in sorted(messages(self.contract, motion), key=lambda message: message[0]):
            gone_ns = begin_ns + received_ns - START_NS - self.now_ns
            self.advance(gone_ns / NS_PER_S)
            if topic not in without:
                self.hear(topic, later(cdr(msg), begin_ns - START_NS))

    def begin(self, wish: StartRequest = WISH) -> Path:
        """An episode begins, once everything is alive."""
        self.play(Motion(seconds=0.5))
        faults = self.recorder.faults(wish, self.now_ns)
        assert not faults, faults
        return self.recorder.begin(wish, self.now_ns)

    def until_ended(self) -> str:
        """Wait for the writer's thread; returns how the episode ended."""
        self.until(lambda: self.recorder.state not in (RecorderState.RECORDING, RecorderState.FINISHING))
        return self.recorder.ended.message

    def until(self, condition: Callable[[], bool]) -> None:
        """Look after the recorder until the condition holds; AssertionError when it never does."""
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, f"it never came; {self.recorder.state!r}, said {self.said}"
            self.recorder.tick(self.now_ns)
            time.sleep(0.005)

    def words(self) -> list[str]:
        """What an episode could not begin for."""
        return [fault.text for fault in self.recorder.faults(WISH, self.now_ns)]


def cdr(msg: Any) -> bytes:
    """A message of `make_bags` as it goes over the wire."""
    return bytes(types().serialize_cdr(msg, msg.__msgtype__))


def later(payload: bytes, delay_ns: int) -> bytes:
    """A serialised message with another stamp in its header."""
    stamp_ns = header_stamp_ns(payload) + delay_ns
    return payload[:4] + struct.pack("<iI", stamp_ns // NS_PER_S, stamp_ns % NS_PER_S) + payload[12:]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 3 MB, mounted at a folder; the test is skipped where nothing may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True,
                             text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system needs the right to mount one: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_bag(folder: Path) -> list[tuple[str, int, bytes]]:
    """Topic, receive time and payload of every message, as rosbags' reader of whole bags gives them."""
    with Reader(folder) as bag:
        return [(connection.topic, received_ns, bytes(raw)) for connection, received_ns, raw in bag.messages()]


"""A recorder's bag played through the policy node's streams gives the frames that the reader of recordings gives, and
those of the data set that it is converted to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from make_bags import Message, Motion, record_episode, tabletop
from rclpy.serialization import deserialize_message
from recorder_bench import Bench, read_bag

from vla_policy.execution import PacedPolicy
from vla_policy.recording import read_episode
from vla_policy.run import PolicyRun, RunRequest
from vla_policy.types import NS_PER_S, Observation
from vla_policy_node.observation_streams import ObservationStreams
from vla_policy_node.pace import Pace
from vla_training.convert import main
from vla_training.datasets.recorded import open_recorded
from vla_training.datasets.registry import open_source

CONTRACT = tabletop(32)
MOTION = Motion(seconds=3.0, camera_hz=30.0, state_hz=100.0, camera_phase_s=0.011, command_phase_s=0.007, delay_s=0.006,
                jitter_s=0.003, seed=5)


class BagNode:
    """What ObservationStreams needs of a node; its clock shows when the message under way was received."""

    def __init__(self) -> None:
        self.callbacks: dict[str, tuple[type, Callable[[Any], None]]] = {}
        self.now_ns = 0

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None], qos: object) -> object:
        self.callbacks[topic] = (kind, callback)
        return object()

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.now_ns))

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=lambda text: None)


class Watcher:
    """A policy that steps every action period and remembers what it saw."""

    period_ns, timings = CONTRACT.action_dt_ns, {}

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def reset(self, instruction: str) -> None:
        """Nothing to forget."""

    def step(self, observation: Observation, run_id: int = 1) -> Observation:
        self.seen.append(observation)
        return observation


def test_the_nodes_streams_and_the_reader_agree(tmp_path: Path) -> None:
    folder = record(tmp_path)
    source = open_recorded(tmp_path)
    seen = watch(folder)
    columns = source.columns(0)
    frames = np.flatnonzero(~columns["observation.held"])
    assert len(frames) >= 50 and 0 <= len(seen) - len(frames) <= 2  # the last ones may have had no command
    images = {name: source.images(0, f"observation.images.{name}", frames) for name in CONTRACT.cameras}
    for index, (frame, live) in enumerate(zip(frames, seen, strict=False)):
        asof_s = (live.stamp_ns - seen[0].stamp_ns) / NS_PER_S
        np.testing.assert_allclose(columns["observation.asof"][frame], asof_s, atol=1e-9)
        np.testing.assert_array_equal(columns["observation.state"][frame], live.joints.astype(np.float32))
        pose = np.concatenate([live.pose.position, live.pose.quaternion])
        np.testing.assert_array_equal(columns["observation.pose"][frame], pose.astype(np.float32))
        for name in CONTRACT.cameras:
            np.testing.assert_array_equal(images[name][index], live.images[name])


def test_the_nodes_streams_and_the_converted_data_set_agree(tmp_path: Path) -> None:
    record_episode(tmp_path / "bags/one", CONTRACT, MOTION, brightly)
    assert main([str(tmp_path / "bags"), str(tmp_path / "set")]) == 0
    source, seen = open_source(tmp_path / "set"), watch(tmp_path / "bags/one")
    columns = source.columns(0)
    frames = np.flatnonzero(~columns["observation.held"].reshape(-1))
    assert len(frames) >= 50 and 0 <= len(seen) - len(frames) <= 2
    for frame, live in zip(frames, seen, strict=False):
        np.testing.assert_array_equal(columns["observation.state"][frame], live.joints.astype(np.float32))
        pose = np.concatenate([live.pose.position, live.pose.quaternion])
        np.testing.assert_array_equal(columns["observation.pose"][frame], pose.astype(np.float32))
    for name in CONTRACT.cameras:
        images = source.images(0, f"observation.images.{name}", frames).astype(int)
        for index, live in enumerate(seen[:len(frames)]):
            assert np.abs(images[index] - live.images[name]).mean() <= 4.0, index  # H.264; neighbours are 12 apart


def brightly(sent: list[Message]) -> list[Message]:
    """The pictures so that one is far from those before and after it."""
    for _, topic, msg in sent:
        if topic.startswith("/camera"):
            pixels = msg.data.reshape(-1, 3).copy()
            pixels[:, 0] = (pixels[:, 0].astype(int) * 37) % 256
            msg.data = pixels.ravel()
    return sent


def record(output: Path) -> Path:
    """An episode of the motion, as the recorder writes it; returns its folder."""
    bench = Bench(output, contract=CONTRACT)
    folder = bench.begin()
    bench.play(MOTION)
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    return folder


def watch(folder: Path) -> list[Observation]:
    """The observations of a policy while rclpy's messages of the bag arrive one by one."""
    node, watcher, episode = BagNode(), Watcher(), read_episode(folder)

    def poll() -> None:
        run.poll(node.now_ns, node.now_ns)

    streams = ObservationStreams(node, CONTRACT, Pace.REALTIME, poll)
    request = RunRequest(1, "push the button", not_before_ns=episode.start_ns)
    paced = PacedPolicy(watcher, CONTRACT, slack_ns=CONTRACT.action_dt_ns // 2)
    run = PolicyRun(request, paced, streams.buffer, streams.decode, CONTRACT.cameras, 1.0)
    run.begin()
    for topic, received_ns, raw in read_bag(folder):
        if topic in node.callbacks:
            kind, callback = node.callbacks[topic]
            node.now_ns = received_ns
            callback(deserialize_message(raw, kind))
    return watcher.seen

"""One episode after the other: how it begins, is marked, ends, what its record tells, and what ends it by a fault."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

import pytest
from make_bags import make
from recorder_bench import CONTRACT, WISH, Bench, Motion, cdr, read_bag

from vla_policy.recorder.bag import BagTopic, RosbagsWriter
from vla_policy.recorder.recorder import RecorderState, Scene, StartRequest
from vla_policy.recorder.topics import CHUNK_TOPIC
from vla_policy.recording import (
    COMMAND_TOPIC,
    COMMAND_TYPE,
    INTERVENTION_TOPIC,
    RUNNING_FILE,
    contract_hash,
    read_episode,
    read_running,
)
from vla_policy.types import NS_PER_S
from vla_training.datasets.recorded import open_recorded

STATIC = CONTRACT.cameras["static"].topic


def test_an_episode_is_what_was_heard_between_start_and_stop(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    assert folder == tmp_path / "episode_0000" and bench.recorder.state is RecorderState.RECORDING
    assert read_running_soon(bench, folder).instruction == "push the button"
    started_ns = bench.now_ns
    bench.play(Motion(seconds=2.0))
    bench.recorder.stop(bench.now_ns, "success", note="a good one")
    assert bench.until_ended() == "episode_0000 is kept (success, 200 messages)"
    record = read_episode(folder)
    assert (record.instruction, record.operator, record.outcome, record.note) == (
        "push the button", "Ada", "success", "a good one")
    assert (record.start_ns, record.stop_ns) == (started_ns, bench.now_ns)
    assert record.contract == CONTRACT and record.contract_hash == contract_hash(CONTRACT)
    assert record.topics[COMMAND_TOPIC].type == COMMAND_TYPE and record.topics[COMMAND_TOPIC].messages == 40
    assert record.topics[STATIC].rate_hz == pytest.approx(20.0, abs=0.01) and record.topics[STATIC].dropped == 0
    assert sorted(path.name for path in folder.iterdir()) == ["episode.json", "episode_0000.mcap", "metadata.yaml"]
    assert len(read_bag(folder)) == 200 and bench.recorder.episodes == 1


def read_running_soon(bench: Bench, folder: Path) -> object:
    bench.until(lambda: (folder / RUNNING_FILE).exists())
    return read_running(folder)


def test_what_is_trained_on_is_what_was_recorded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin()
    bench.play(Motion(seconds=2.0))
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    source = open_recorded(tmp_path)
    assert source.episodes[0].length >= 38 and source.episodes[0].instructions == ("push the button",)
    assert source.columns(0)["observation.state"][:3, 0].tolist() == [0.0, 1.0, 2.0]


def test_losses_are_counted_per_topic(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.hear(STATIC, b"\0" * 60, lost=5)  # before the episode, none of its business
    folder = bench.begin()
    bench.hear(STATIC, b"\0" * 60, lost=3)
    bench.advance(0.1)
    bench.hear(STATIC, b"\0" * 60, lost=2)
    assert bench.recorder.written()[2] == 5
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    assert read_episode(folder).topics[STATIC].dropped == 5


def test_a_full_queue_loses_messages_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, queue_bytes=1000)
    folder = bench.begin()
    bench.hear(STATIC, b"\0" * 1001)
    bench.advance(0.1)
    bench.hear(STATIC, b"\0" * 100)
    bench.recorder.stop(bench.now_ns)
    assert bench.until_ended().endswith("1 messages, 1 lost because the disk is slow)")
    topic = read_episode(folder).topics[STATIC]
    assert (topic.messages, topic.dropped) == (1, 1)


def test_marks_count_in_their_order_and_reach_the_disk(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    bench.recorder.hear_outcome("success", bench.now_ns)
    bench.until(lambda: (folder / RUNNING_FILE).exists() and read_running(folder).outcome == "success")
    bench.recorder.mark("failure")
    bench.advance(0.1)
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    assert read_episode(folder).outcome == "failure"


def test_what_is_discarded_is_gone_and_its_number_free(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    bench.play()
    bench.recorder.stop(bench.now_ns, discard=True)
    assert bench.until_ended() == "episode_0000 was discarded"
    assert not folder.exists() and bench.recorder.episodes == 0 and not bench.recorder.ended.is_kept
    assert bench.begin() == folder


def test_the_simulators_scene_names_what_is_not_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.recorder.hear_scene(Scene("open the drawer", "open_drawer", 9), bench.now_ns)
    folder = bench.begin(StartRequest())
    bench.advance(0.1)
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    record = read_episode(folder)
    assert (record.instruction, record.task, record.seed) == ("open the drawer", "open_drawer", 9)


def test_another_scene_ends_the_episode_and_keeps_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    bench.recorder.hear_scene(Scene("late news", "", 1), bench.now_ns - 1)
    assert bench.recorder.state is RecorderState.RECORDING
    bench.advance(0.5)
    bench.recorder.hear_scene(Scene("open the drawer", "open_drawer", 2), bench.now_ns)
    assert bench.until_ended().startswith("the scene was reset, which ends the episode; episode_0000 is kept")
    assert bench.recorder.ended.is_kept and "the scene was reset" in read_episode(folder).note


def test_a_time_limit_ends_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin(StartRequest("push the button", time_limit_ns=NS_PER_S))
    bench.play(Motion(seconds=1.1))
    assert bench.until_ended().startswith("the time limit ends the episode") and bench.recorder.ended.is_kept


@pytest.mark.parametrize(("policy", "taken_over", "handed_back", "driver"), [
    (False, True, False, "operator"), (False, False, False, "operator"), (True, False, False, "policy"),
    (True, True, True, "shared")])
def test_who_drove_is_found_out(tmp_path: Path, policy: bool, taken_over: bool, handed_back: bool, driver: str) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    if taken_over:
        bench.recorder.hear_driver(operator_drives=True)
        bench.recorder.hear_policy()  # it goes on thinking, but the operator drives
    if handed_back:
        bench.recorder.hear_driver(operator_drives=False)
    if policy:
        bench.recorder.hear_policy()
    bench.advance(0.1)
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    assert read_episode(folder).driver == driver


def test_a_named_driver_is_believed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, driver="script")
    folder = bench.begin()
    bench.recorder.hear_policy()
    bench.advance(0.1)
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    assert read_episode(folder).driver == "script"


def test_a_state_of_before_opens_the_episode(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    driving = cdr(make("std_msgs/msg/Bool", data=True))
    bench.hear(INTERVENTION_TOPIC, driving)
    bench.hear(CHUNK_TOPIC, b"\0\1\0\0 a chunk of before is none")
    folder = bench.begin()
    start_ns = bench.now_ns
    bench.play()
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    assert read_bag(folder)[0] == (INTERVENTION_TOPIC, start_ns, driving)
    assert CHUNK_TOPIC not in read_episode(folder).topics


def test_a_history_of_before_the_start_is_left_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.offer(COMMAND_TOPIC, reliable=True, transient_local=True)
    folder = bench.begin()
    start_ns = bench.now_ns
    for stamp_ns in (start_ns - 1, start_ns, start_ns + 1):
        bench.recorder.take(COMMAND_TOPIC, b"\0\1\0\0" + bytes(60), start_ns + 2, None, stamp_ns)
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    assert read_episode(folder).topics[COMMAND_TOPIC].messages == 2


# ---- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("jump_s", "words"), [(-2.0, r"time went back by 1\.9"), (5.0, r"time leapt forward by 5\.")])
def test_a_clock_that_jumps_ends_it_and_keeps_what_came_before(tmp_path: Path, jump_s: float, words: str) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    bench.play()
    before_ns = bench.now_ns
    bench.advance(0.05, jump_s)
    bench.hear(STATIC, b"\0" * 60)
    bench.until_ended()
    assert bench.recorder.state is RecorderState.FAILED and not bench.recorder.ended.is_kept
    record = read_episode(folder)
    assert re.search(words, record.note) and record.stop_ns == before_ns
    assert len(read_bag(folder)) == 100 and bench.said[-1][0] == "error"
    bench.play()
    assert bench.recorder.faults(WISH, bench.now_ns) == []  # a new one may be started


def test_a_silent_topic_is_told_once_and_when_it_comes_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin()
    for _ in range(3):
        bench.play(without=(STATIC,))
        bench.recorder.tick(bench.now_ns)
    assert bench.recorder.silent == [STATIC]
    bench.play()
    bench.recorder.tick(bench.now_ns)
    assert bench.recorder.silent == []
    assert [words for _, words in bench.said if words.startswith(STATIC)] == [
        f"{STATIC}: no message for 1.9 s; the episode has a hole there", f"{STATIC}: messages come again"]
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()


class FullDisk(RosbagsWriter):
    """A disk that takes some messages and no more."""

    room = 50

    def write(self, topic: str, received_ns: int, payload: bytes) -> None:
        """See `BagWriter`."""
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(topic, received_ns, payload)


def test_a_full_disk_fails_in_words_and_the_recorder_lives_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FullDisk)
    folder = bench.begin()
    bench.play()
    assert bench.until_ended() == (f"writing failed: {folder}: No space left on device; what was written can be "
                                   f"recovered: ros2 run vla_policy recover_episode {folder}")
    assert bench.recorder.state is RecorderState.FAILED and not (folder / "episode.json").exists()
    assert bench.begin() == tmp_path / "episode_0001"
    bench.recorder.stop(bench.now_ns, discard=True)
    bench.until_ended()


class NoClosing(RosbagsWriter):
    """A disk that is full when the bag is closed."""

    def close(self) -> None:
        """See `BagWriter`."""
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_bag_that_cannot_be_closed_is_no_episode(tmp_path: Path) -> None:
    bench = Bench(tmp_path, NoClosing)
    folder = bench.begin()
    bench.play()
    bench.recorder.stop(bench.now_ns, "success")
    assert "No space left on device; what was written can be recovered" in bench.until_ended()
    assert not (folder / "episode.json").exists() and read_running(folder).outcome == "success"


class Broken(RosbagsWriter):
    """A bag library with a mistake in it."""

    def add_topic(self, topic: BagTopic) -> None:
        """See `BagWriter`."""
        raise KeyError(topic.name)


def test_a_mistake_in_a_bag_library_ends_the_episode_in_words(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Broken)
    bench.begin()
    bench.play()
    assert "writing failed: " in bench.until_ended()


def test_an_episode_ends_while_the_disk_has_room_to_close_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, min_free_bytes=10_000)
    folder = bench.begin()
    bench.play()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 999, 999))
    assert bench.until_ended().startswith("the disk is nearly full, which ends the episode; make room")
    assert read_episode(folder).stop_ns == bench.now_ns and len(read_bag(folder)) == 100
    assert bench.recorder.state is RecorderState.FAILED
    assert bench.words()[0].startswith("disk: 0 MB are free at")

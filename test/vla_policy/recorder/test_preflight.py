"""What keeps an episode from beginning: each cause in words, and whether waiting may cure it."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_bags import record_episode, tabletop
from recorder_bench import CONTRACT, WISH, Bench, Motion

from vla_policy.recorder.recorder import StartRequest
from vla_policy.recording import COMMAND_TOPIC

STATIC = CONTRACT.cameras["static"].topic


def test_nothing_that_is_up_to_date_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "new")
    bench.play()
    assert bench.words() == []


def test_a_topic_that_nobody_publishes_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.play()
    bench.streams[STATIC].offered = bench.streams[STATIC].types = ()
    bench.streams[COMMAND_TOPIC].offered = ()
    assert bench.words() == [f"{STATIC}: nobody publishes it; start its driver",
                             f"{COMMAND_TOPIC}: nobody publishes it; start guard_node: what the robot is sent belongs "
                             "into an episode"]
    assert all(fault.may_pass for fault in bench.recorder.faults(WISH, bench.now_ns))


def test_a_guard_that_is_not_connected_yet_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.play()
    bench.streams[COMMAND_TOPIC].is_connected = False
    fault, = bench.recorder.faults(WISH, bench.now_ns)
    assert fault.may_pass and fault.text.startswith(f"{COMMAND_TOPIC}: its publisher is not connected yet")


def test_a_topic_without_messages_is_told_from_one_that_ceased(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.play(without=(STATIC,))
    assert bench.words() == [f"{STATIC}: it has a publisher, but no message came yet; look at its driver"]
    bench.play()
    bench.play(Motion(seconds=3.0), without=(STATIC,))
    assert bench.words() == [f"{STATIC}: it has a publisher, but no message came for 3.0 s; look at its driver"]


def test_another_type_is_refused_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.play()
    bench.offer(STATIC, "sensor_msgs/msg/CompressedImage")
    fault, = bench.recorder.faults(WISH, bench.now_ns)
    assert not fault.may_pass
    assert fault.text == (f"{STATIC}: its publisher sends sensor_msgs/msg/CompressedImage, expected "
                          "sensor_msgs/msg/Image; correct contract or driver")


def test_a_slow_camera_is_refused_by_its_contract(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.play(Motion(seconds=2.0, camera_hz=2.5))
    assert bench.words()[0] == (f"{STATIC}: got 2.5 Hz, expected at least 3.3 Hz by its max_age_s; look at its driver")


def test_a_camera_slower_than_in_the_last_episode_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin()
    bench.play(Motion(seconds=2.0, camera_hz=30.0))
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    bench.play(Motion(seconds=3.0, camera_hz=10.0))
    assert bench.words()[0].startswith(f"{STATIC}: got 10.0 Hz, expected about the 30.0 Hz of the last episode")


def test_a_waiting_simulator_is_not_slow(tmp_path: Path) -> None:
    bench = Bench(tmp_path, pace="lockstep")
    bench.play(Motion(seconds=2.0, camera_hz=2.0, state_hz=2.0))
    assert bench.words() == []


def test_an_episode_needs_an_instruction(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.play()
    fault, = bench.recorder.faults(StartRequest("  "), bench.now_ns)
    assert "instruction: got none" in fault.text and not fault.may_pass
    bench.offer("/vla/episode")  # a simulator is there, its word on the way
    assert bench.recorder.faults(StartRequest(), bench.now_ns)[0].may_pass


def test_simulated_time_must_have_begun(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.play()
    assert "the clock stands at 0" in bench.recorder.faults(WISH, 0)[0].text


@pytest.mark.parametrize("name", ["a/b", "..", " x", "-x"])
def test_a_name_is_one_word(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path)
    bench.play()
    assert "expected letters, digits" in bench.recorder.faults(StartRequest("x", name=name), bench.now_ns)[0].text


def test_a_name_that_is_taken_tells_a_free_one(tmp_path: Path) -> None:
    for taken in ("pick", "pick_2"):
        (tmp_path / taken).mkdir()
    bench = Bench(tmp_path)
    bench.play()
    assert [fault.text for fault in bench.recorder.faults(StartRequest("x", name="pick"), bench.now_ns)] == [
        f"name: {tmp_path / 'pick'} is there already; 'pick_3' is free"]


def test_a_folder_holds_one_contract(tmp_path: Path) -> None:
    record_episode(tmp_path / "old", tabletop(16))
    bench = Bench(tmp_path)
    bench.play()
    words, = bench.words()
    assert words.startswith(f"contract: not that of old in {tmp_path}: cameras: ")
    assert words.endswith("keep the episodes of two contracts in two folders")


def test_limits_may_be_tuned_between_episodes(tmp_path: Path) -> None:
    tuned = CONTRACT.model_copy(update={"limits": CONTRACT.limits.model_copy(update={"jump_factor": 9.0})})
    record_episode(tmp_path / "old", tuned)
    bench = Bench(tmp_path)
    bench.play()
    assert bench.words() == []


def test_a_disk_without_room_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "new", min_free_bytes=1 << 60)
    bench.play()
    assert "MB (min_free_mb); make room or choose another output" in bench.words()[0]


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench(tmp_path / "file" / "new")
    bench.play()
    assert bench.words()[0].endswith("is no folder that may be written to; choose another")


def test_one_episode_at_a_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    assert bench.words() == [f"{folder} is being recorded; stop it first"]
    bench.recorder.stop(bench.now_ns, discard=True)
    bench.until_ended()

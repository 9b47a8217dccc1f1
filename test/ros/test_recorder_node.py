"""The recorder as a process on real topics: what it writes, byte for byte, what it refuses, how it ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from policy_rig import DEADLINE_S, patient_contract
from processes import Spawn
from rclpy.serialization import deserialize_message
from recorder_bench import small_disk
from recorder_rig import RecorderRig, recorder_command
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, String
from vla_msgs.action import RecordEpisode
from vla_msgs.msg import EpisodeEvent, RecordingStatus
from vla_msgs.srv import MarkRecording

from vla_policy.recorder.recover import recover
from vla_policy.recording import read_episode
from vla_policy.types import NS_PER_S
from vla_policy_node.messages import ns_to_duration, ns_to_stamp
from vla_policy_node.pace import LATEST_ONLY, RELIABLE
from vla_training.datasets.recorded import open_recorded

SUCCESS, FAILURE = MarkRecording.Request.SUCCESS, MarkRecording.Request.FAILURE
Start = Callable[..., RecorderRig]


@pytest.fixture
def start(spawn: Spawn, tmp_path: Path) -> Iterator[Start]:
    """`start(*parameters, silent=…, compressed=…)` starts a recorder and returns a rig whose robot it records."""
    rigs = []

    def begin(*parameters: str, silent: tuple[str, ...] = (), compressed: bool = False,
              output: Path = tmp_path / "out") -> RecorderRig:
        settings = {"min_free_mb": "1", "preflight_s": "20"} | dict(word.split(":=") for word in parameters)
        contract = patient_contract("tabletop", tmp_path)
        if compressed:
            data = yaml.safe_load(contract.read_text())
            data["cameras"]["wrist"]["compressed"] = True
            contract.write_text(yaml.safe_dump(data))
        rig = RecorderRig(contract, silent)
        rigs.append(rig)
        rig.path, rig.output = contract, output
        rig.process = spawn(recorder_command(contract, rig.output, *map(":=".join, settings.items())))
        return rig

    yield begin
    for rig in rigs:
        rig.close()


def bag_of(folder: Path) -> dict[str, list[bytes]]:
    """Topic -> payloads of a bag, in their order."""
    found: dict[str, list[bytes]] = {}
    with Reader(folder) as bag:
        for connection, _, raw in bag.messages():
            found.setdefault(connection.topic, []).append(bytes(raw))
    return found


# ---- what is written ------------------------------------------------------------------------------------------------


def test_an_episode_is_recorded_and_can_be_trained_on(start: Start) -> None:
    rig = start()
    folder = rig.record("push the button", operator_name="Ada", task="press_button")
    assert folder == rig.output / "episode_0000"
    status = rig.until_state(RecordingStatus.RECORDING)
    assert (status.path, status.instruction) == (str(folder), "push the button")
    rig.until_written(200)
    assert rig.mark(FAILURE).success
    answer = rig.stop(outcome=SUCCESS, note="smooth")
    assert answer.success and answer.path == str(folder) and "episode_0000 is kept (success, " in answer.message
    status = rig.until_state(RecordingStatus.IDLE)
    assert (status.episodes, status.outcome, status.message) == (1, SUCCESS, answer.message)
    record = read_episode(folder)
    assert (record.operator, record.task, record.outcome, record.note) == ("Ada", "press_button", "success", "smooth")
    assert record.contract == rig.contract and record.pace == "realtime" and record.driver == "operator"
    bag = bag_of(folder)
    assert {topic: len(payloads) for topic, payloads in bag.items()} == {
        topic: told.messages for topic, told in record.topics.items()}
    assert sum(told.dropped for told in record.topics.values()) == 0
    source = open_recorded(rig.output)
    assert source.episodes[0].length >= 20 and source.episodes[0].instructions == ("push the button",)


def test_payloads_are_those_that_were_published_byte_for_byte_and_none_is_missing(start: Start) -> None:
    rig = start(compressed=True)
    rig.as_bytes = True
    folder = rig.record()
    rig.until_written(400)
    rig.publish("/vla/intervention", Bool(data=True))
    rig.until_written(rig.statuses[-1].messages + 50)
    assert rig.stop().success
    bag = bag_of(folder)
    assert bag.pop("/vla/intervention") == [padded(payload) for payload in rig.sent.pop("/vla/intervention")]
    assert set(bag) == set(rig.sent) and len(bag) == 5
    for topic, payloads in bag.items():
        sent = [padded(payload) for payload in rig.sent[topic]]
        first = sent.index(payloads[0])
        assert payloads == sent[first : first + len(payloads)] and len(payloads) >= 60, topic
    assert any(len(payload) % 4 for payload in rig.sent[rig.contract.cameras["wrist"].topic])  # JPEGs of odd lengths
    assert all(told.dropped == 0 for told in read_episode(folder).topics.values())


def padded(payload: bytes) -> bytes:
    """As it arrives: DDS fills a payload up to a multiple of four bytes, which no reader of CDR looks at."""
    return payload + bytes(-len(payload) % 4)


def test_what_publishers_offer_is_followed_and_kept(start: Start) -> None:
    rig = start("topics:=[/wrench, /later]", silent=("/camera/wrist/image_raw",))
    rig.silent.clear()
    rig.advertise(Image, "/camera/wrist/image_raw", LATEST_ONLY)  # as camera drivers often do
    rig.advertise(String, "/wrench", RELIABLE)
    folder = rig.record()
    rig.publish("/wrench", String(data="hello"))
    rig.until_written(200)
    rig.stop()
    with Reader(folder) as bag:
        offered = {connection.topic: connection.ext.offered_qos_profiles[0] for connection in bag.connections}
        kinds = {connection.topic: connection.msgtype for connection in bag.connections}
    assert offered["/camera/wrist/image_raw"].reliability.name == "BEST_EFFORT"
    assert offered["/camera/static/image_raw"].reliability.name == "RELIABLE"
    assert offered["/vla/command"].durability.name == "TRANSIENT_LOCAL"
    assert kinds["/wrench"] == "std_msgs/msg/String" and "/later" not in kinds
    assert deserialize_message(bag_of(folder)["/wrench"][0], String).data == "hello"
    assert len(bag_of(folder)["/camera/wrist/image_raw"]) > 10


def test_the_scene_of_a_simulator_says_what_is_to_be_done_and_whether_it_was(start: Start) -> None:
    rig = start()
    rig.scene(EpisodeEvent.START, seed=17)
    folder = rig.record(instruction="")
    rig.until_written(50)
    rig.publish("/vla/intervention", Bool(data=True))
    rig.scene(EpisodeEvent.SUCCESS)
    rig.until(lambda: rig.statuses[-1].outcome == SUCCESS, "mark by the simulator")
    rig.stop()
    record = read_episode(folder)
    assert (record.instruction, record.task, record.seed, record.outcome, record.driver) == (
        "push the button", "press_button", 17, "success", "operator")
    events = [deserialize_message(payload, EpisodeEvent).event for payload in bag_of(folder)["/vla/episode"]]
    assert events == [EpisodeEvent.START, EpisodeEvent.SUCCESS]


def test_the_action_records_until_its_time_limit_or_its_cancel(start: Start) -> None:
    rig = start()
    feedback: list[Any] = []

    def send(limit_s: float) -> Any:
        rig.until(rig.action.server_is_ready, "action server")
        goal = RecordEpisode.Goal(instruction="push the button", operator_name="Ada",
                                  time_limit=ns_to_duration(round(limit_s * NS_PER_S)))
        answer = rig.action.send_goal_async(goal, feedback_callback=lambda msg: feedback.append(msg.feedback))
        rig.until(answer.done, "answer to a goal")
        return answer.result()

    result = send(1.5).get_result_async()
    rig.until(result.done, "end of the episode")
    told = result.result().result
    assert told.success and "the time limit ends the episode" in told.message
    record = read_episode(Path(told.path))
    assert record.stop_ns - record.start_ns == pytest.approx(1.5 * NS_PER_S, abs=NS_PER_S)
    assert feedback and feedback[-1].status.path == told.path
    handle = send(0.0)
    rig.until_state(RecordingStatus.RECORDING)
    rig.until_written(50)
    handle.cancel_goal_async()
    result = handle.get_result_async()
    rig.until(result.done, "end of the episode")
    assert result.result().result.success and Path(result.result().result.path).name == "episode_0001"


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_a_topic_that_is_missing_is_named_and_waited_for(start: Start) -> None:
    rig = start("preflight_s:=1.5", silent=("/camera/wrist/image_raw", "/vla/command"))
    answer = rig.start()
    assert not answer.success and answer.path == ""
    assert answer.message.startswith("not recording: /camera/wrist/image_raw: nobody publishes it; start its driver")
    assert "/vla/command: nobody publishes it; start guard_node" in answer.message
    assert not rig.output.exists()


def test_another_type_on_a_topic_is_refused_with_both(start: Start) -> None:
    rig = start(silent=("/tcp_pose",))
    rig.silent.clear()
    rig.advertise(String, "/tcp_pose", RELIABLE)
    rig.feeding = False
    answer = rig.start()
    assert not answer.success
    assert "/tcp_pose: its publisher sends std_msgs/msg/String, expected geometry_msgs/msg/Pose" in answer.message


def test_what_cannot_be_done_now_is_said(start: Start) -> None:
    rig = start(silent=("/vla/episode",))  # no simulator that could name a scene
    assert rig.start(instruction="").message.startswith("not recording: instruction: got none")
    assert "nothing is being recorded" in rig.stop().message and not rig.mark(SUCCESS).success
    rig.record(name="pick")
    answer = rig.start()
    assert not answer.success and answer.message == f"not recording: {rig.output}/pick is being recorded; stop it first"
    assert "outcome: got 9, expected one of [0, 1, 2]" in rig.mark(9).message
    assert rig.stop(discard=True).message == "pick was discarded" and not (rig.output / "pick").exists()
    rig.record(name="pick")
    assert rig.stop().success
    words = rig.start(name="pick").message
    assert words == f"not recording: name: {rig.output}/pick is there already; 'pick_2' is free"


@pytest.mark.parametrize(("parameters", "words"), [
    (("output:=''",), "parameter 'output': got nothing, expected the folder"),
    (("pace:=fast",), "parameter 'pace': got 'fast'; known: realtime, lockstep"),
    (("writer:=rosbag2",), "rosbag2_py is not installed"),
    (("queue_mb:=-1",), "parameter 'queue_mb': got -1, expected a number"),
])
def test_a_parameter_that_cannot_be_used_ends_it(
    spawn: Spawn, tmp_path: Path, parameters: tuple[str, ...], words: str
) -> None:
    if "writer:=rosbag2" in parameters and find_spec("rosbag2_py") is not None:
        pytest.skip("rosbag2 is here")
    process = spawn(recorder_command(patient_contract("tabletop", tmp_path), tmp_path / "out", *parameters))
    process.wait_for(words.replace("'", ".").replace("(", r"\("))
    assert process.wait() == 2


# ---- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_recorder_that_is_shut_down_ends_the_episode_first(start: Start, number: int) -> None:
    rig = start()
    folder = rig.record()
    rig.until_written(100)
    rig.mark(SUCCESS)
    rig.process.signal(number)
    assert rig.process.wait() == 0
    record = read_episode(folder)
    assert (record.outcome, record.note) == ("success", "the recorder was shut down, which ends the episode")
    assert len(open_recorded(rig.output).episodes) == 1


def test_a_recorder_that_is_killed_leaves_what_can_be_recovered(start: Start, spawn: Spawn) -> None:
    rig = start()
    whole = rig.record()
    rig.until_written(100)
    rig.stop()
    before = bag_of(whole)
    torn = rig.record()
    rig.until_written(300)
    rig.process.signal(signal.SIGKILL)
    rig.process.wait()
    again = spawn(recorder_command(rig.path, rig.output))
    again.wait_for(rf"{torn} was interrupted; recover it: ros2 run vla_policy recover_episode {torn}")
    done = subprocess.run([sys.executable, "-m", "vla_policy.recorder.recover", str(torn)], capture_output=True,
                          text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0 and "recovered, " in done.stderr
    assert bag_of(whole) == before and sum(map(len, bag_of(torn).values())) >= 150
    assert read_episode(torn).outcome == "unknown"
    with pytest.raises(ValueError, match="nothing is to be recovered"):
        recover(torn)
    assert len(open_recorded(rig.output).episodes) == 2


def test_a_full_disk_fails_the_episode_and_the_node_lives_on(start: Start, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        rig = start("min_free_mb:=0.0", output=disk)
        torn = rig.record()
        status = rig.until_state(RecordingStatus.FAILED)
        assert "No space left on device; what was written can be recovered: ros2 run vla_policy" in status.message
        assert rig.stop().message == f"nothing is being recorded; the last episode: {status.message}"
        shutil.move(torn, tmp_path / torn.name)
        record = recover(tmp_path / torn.name)
        assert sum(told.messages for told in record.topics.values()) >= 10
        rig.record()
        assert rig.stop(discard=True).success


def test_a_topic_that_falls_silent_is_told(start: Start) -> None:
    rig = start()
    folder = rig.record()
    rig.silent.add("/camera/wrist/image_raw")
    rig.until(lambda: rig.statuses[-1].message == "silent: /camera/wrist/image_raw", "news of a silent camera")
    rig.silent.clear()
    rig.until(lambda: rig.statuses[-1].message == "", "news of the camera's return")
    assert rig.stop().success and folder.exists()
    rig.process.wait_for(r"/camera/wrist/image_raw: no message for .* s; the episode has a hole there")
    rig.process.wait_for(r"/camera/wrist/image_raw: messages come again")


@pytest.mark.parametrize(("leap_s", "words"), [(-3.0, "time went back by"), (3600.0, "time leapt forward by")])
def test_a_clock_that_jumps_ends_the_episode_and_keeps_it(start: Start, leap_s: float, words: str) -> None:
    rig = start("use_sim_time:=true", "pace:=lockstep")
    offset_ns, real = 0, rig.stamp_ns

    def stamp_ns() -> int:
        now_ns = real() + offset_ns
        rig.publish("/clock", Clock(clock=ns_to_stamp(now_ns)))
        return now_ns

    rig.stamp_ns = stamp_ns
    folder = rig.record()
    rig.until_written(150)
    offset_ns = round(leap_s * NS_PER_S)
    status = rig.until_state(RecordingStatus.FAILED)
    assert words in status.message and "is kept" in status.message
    record = read_episode(folder)
    assert words in record.note and record.pace == "lockstep" and record.topics["/clock"].messages > 5
    assert record.stop_ns - record.start_ns < 60 * NS_PER_S

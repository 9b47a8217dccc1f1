"""Bags written by rosbags read as the policy node would have seen them; broken ones are refused in words."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_bags import (
    START_NS,
    Message,
    Motion,
    intervention,
    make,
    messages,
    picture,
    record_episode,
    record_of,
    tabletop,
    twist,
    write_bag,
)

from vla_policy.errors import DataError
from vla_policy.execution import PacedPolicy
from vla_policy.messages import stamp_to_ns
from vla_policy.observation.buffer import ObservationBuffer, channels_of
from vla_policy.observation.streams import decode_sample, message_types
from vla_policy.recording import COMMAND_TOPIC, EPISODE_FILE
from vla_policy.run import PolicyRun, RunRequest
from vla_policy.types import NS_PER_S, Observation
from vla_training.datasets.recorded import open_recorded
from vla_training.datasets.registry import detect_format, open_source

FIXTURE = Path(__file__).parents[1] / "fixtures/recorded/one"
CONTRACT = tabletop(32)
STATIC = "observation.images.static"
DT_S = 1.0 / CONTRACT.action.rate_hz
UNEVEN = Motion(seconds=3.0, camera_hz=30.0, state_hz=100.0, camera_phase_s=0.011, command_phase_s=0.007, delay_s=0.006,
                jitter_s=0.003, seed=4)


def test_an_episode_in_lockstep_is_read_as_it_was_sent(tmp_path: Path) -> None:
    path = record_episode(tmp_path / "one", CONTRACT, pace="lockstep")
    source = open_recorded(tmp_path)
    assert [(e.key, e.length, e.instructions, e.task) for e in source.episodes] == [
        (str(path), 40, ("push the button",), "press_button")]
    columns = source.columns(0)
    assert {name: (array.dtype.name, array.shape[1:]) for name, array in columns.items()} == {
        name: (column.dtype, column.shape) for name, column in source.spec.columns.items()}
    steps = np.arange(40)
    np.testing.assert_allclose(columns["timestamp"], steps * DT_S)
    np.testing.assert_array_equal(columns["observation.state"], steps[:, None] + np.arange(8))
    np.testing.assert_allclose(columns["observation.pose"][:, 0], 0.4 + 0.001 * steps, rtol=1e-6)
    np.testing.assert_allclose(columns["action"][:, :6], [twist(i * DT_S) * DT_S for i in steps], rtol=1e-6)
    assert columns["action"][:, 6].tolist() == [1.0] * 10 + [0.0] * 30
    assert not columns["observation.held"].any() and not columns["intervention"].any()
    np.testing.assert_array_equal(source.images(0, STATIC, np.array([7, 39, 7])),
                                  [picture(i, 32, 32) for i in (7, 39, 7)])


def test_the_spec_names_what_the_contract_names(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT)
    source = open_source(tmp_path)
    assert detect_format(tmp_path) == "recorded"
    assert (source.spec.format, source.spec.rate_hz) == ("recorded", 20.0)
    assert source.spec.cameras == {STATIC: (32, 32), "observation.images.wrist": (32, 32)}
    assert source.spec.columns["action"].names == CONTRACT.action_names
    assert source.spec.columns["observation.state"].names == CONTRACT.joints.names
    assert source.contract == CONTRACT and source.spec.recorded_with["base frame"] == "base_link"
    assert source.episodes[0].extra["operator"] == "someone" and source.episodes[0].extra["dropped_messages"] == 1


@pytest.mark.parametrize("motion", [UNEVEN, Motion(camera_hz=20.0, state_hz=50.0, jitter_s=0.02, delay_s=0.03, seed=9)])
def test_frames_are_those_that_a_policy_would_have_had(tmp_path: Path, motion: Motion) -> None:
    """The same messages, whole, through the same buffer and ticks, decoded by the node's function."""
    record_episode(tmp_path / "one", CONTRACT, motion)
    seen = observed_live(sorted(messages(CONTRACT, motion), key=lambda message: message[0]))
    source = open_recorded(tmp_path)
    columns = source.columns(0)
    taken = np.flatnonzero(~columns["observation.held"])
    first_s = seen[0].stamp_ns / NS_PER_S
    by_time = {round(observation.stamp_ns / NS_PER_S - first_s, 6): observation for observation in seen}
    asof_s = np.round(columns["observation.asof"], 6)  # the first frame has a command, so both begin with it
    assert len(taken) > 30 and len(seen) - len(taken) <= 2  # the last may have had no command
    images = {name: source.images(0, f"observation.images.{name}", np.arange(len(asof_s))) for name in CONTRACT.cameras}
    for frame in taken:
        live = by_time[asof_s[frame]]
        np.testing.assert_array_equal(columns["observation.state"][frame], live.joints.astype(np.float32))
        np.testing.assert_array_equal(columns["observation.pose"][frame, :3], live.pose.position.astype(np.float32))
        for name, image in live.images.items():
            np.testing.assert_array_equal(images[name][frame], image)


def observed_live(sent: list[Message]) -> list[Observation]:
    """What a policy that steps every action period sees of these messages."""
    seen: list[Observation] = []

    class Watcher:
        period_ns, timings = CONTRACT.action_dt_ns, {}

        def reset(self, instruction: str) -> None:
            """Nothing to forget."""

        def step(self, observation: Observation, run_id: int = 1) -> Observation:
            seen.append(observation)
            return observation

    channels = {topic: channel for channel, (topic, _) in message_types(CONTRACT).items()}
    buffer = ObservationBuffer(channels_of(CONTRACT))
    paced = PacedPolicy(Watcher(), CONTRACT, slack_ns=CONTRACT.action_dt_ns // 2)
    run = PolicyRun(RunRequest(1, "push the button", not_before_ns=START_NS), paced, buffer,
                    lambda sample: decode_sample(CONTRACT, sample), CONTRACT.cameras, 1.0)
    run.begin()
    for received_ns, topic, msg in sent:
        if topic in channels and received_ns <= START_NS + 10 * NS_PER_S:
            buffer.push(channels[topic], stamp_to_ns(msg.header.stamp), msg, received_ns)
            run.poll(received_ns, received_ns)
    return seen


def test_images_that_never_came_leave_held_frames(tmp_path: Path) -> None:
    def drop(sent: list[Message]) -> list[Message]:
        lost = range(START_NS + 950_000_000, START_NS + 1_150_000_000)
        return [m for m in sent if not (m[1] == CONTRACT.cameras["wrist"].topic and m[0] in lost)]

    record_episode(tmp_path / "one", CONTRACT, change=drop)
    columns = open_recorded(tmp_path).columns(0)
    held = np.flatnonzero(columns["observation.held"])
    assert held.tolist() == [19, 20, 21]  # 0.95 s to 1.05 s; for 1.10 s the camera's old image is fresh enough
    assert columns["observation.state"][18:24, 0].tolist() == [18, 18, 18, 18, 22, 23]
    np.testing.assert_allclose(np.diff(columns["timestamp"]), DT_S)
    np.testing.assert_allclose(columns["action"][20, :6], twist(20 * DT_S) * DT_S, rtol=1e-6)  # commands went on


def test_an_intervention_is_marked_from_its_message_on(tmp_path: Path) -> None:
    def take_over(sent: list[Message]) -> list[Message]:
        changes = [intervention(START_NS + 500_000_001, True), intervention(START_NS + 900_000_001, False)]
        return sorted(sent + changes, key=lambda message: message[0])

    record_episode(tmp_path / "one", CONTRACT, change=take_over)
    assert np.flatnonzero(open_recorded(tmp_path).columns(0)["intervention"]).tolist() == list(range(11, 19))


def test_compressed_images_are_decoded(tmp_path: Path) -> None:
    contract = tabletop(48, compressed=True)
    record_episode(tmp_path / "one", contract, Motion(seconds=0.5))
    images = open_recorded(tmp_path).images(0, STATIC, np.array([3]))
    assert np.abs(images[0].astype(int) - picture(3, 48, 48)).mean() < 3  # JPEG


def test_a_file_compressed_in_chunks_reads_the_same(tmp_path: Path) -> None:
    sent = sorted(messages(CONTRACT, UNEVEN), key=lambda message: message[0])
    write_bag(tmp_path / "plain" / "one", sent, record_of(CONTRACT, UNEVEN.seconds))
    write_bag(tmp_path / "zstd" / "one", sent, record_of(CONTRACT, UNEVEN.seconds), zstd=True)
    plain, packed = open_recorded(tmp_path / "plain"), open_recorded(tmp_path / "zstd")
    for name, array in plain.columns(0).items():
        np.testing.assert_array_equal(packed.columns(0)[name], array)
    frames = np.arange(plain.episodes[0].length)
    np.testing.assert_array_equal(packed.images(0, STATIC, frames), plain.images(0, STATIC, frames))


def genuine(tmp_path: Path) -> Path:
    """A copy of the episode that the MCAP project's own library wrote (make_fixture.py)."""
    return shutil.copytree(FIXTURE, tmp_path / "genuine" / "one")


def test_a_file_by_the_mcap_library_reads_the_same(tmp_path: Path) -> None:
    motion = Motion(seconds=1.0, camera_hz=30.0, state_hz=50.0, delay_s=0.004, jitter_s=0.003, seed=6)
    record_episode(tmp_path / "expected" / "one", tabletop(16), motion)
    expected, source = open_recorded(tmp_path / "expected"), open_recorded(genuine(tmp_path))
    for name, array in expected.columns(0).items():
        np.testing.assert_array_equal(source.columns(0)[name], array)
    frames = np.arange(expected.episodes[0].length)
    np.testing.assert_array_equal(source.images(0, STATIC, frames), expected.images(0, STATIC, frames))


def test_a_flipped_bit_fails_the_checksum_of_its_chunk(tmp_path: Path) -> None:
    path = genuine(tmp_path) / "one.mcap"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"one\.mcap: cannot be read as MCAP"):
        open_recorded(path.parent)


def test_what_comes_before_the_start_and_after_the_stop_is_left_out(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, start_ns=START_NS + 500_000_000, stop_ns=START_NS + 1_500_000_000)
    columns = open_recorded(tmp_path).columns(0)
    assert columns["observation.state"][[0, -1], 0].tolist() == [10.0, 30.0]


def test_frames_without_a_command_are_left_out(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, change=lambda sent: [
        m for m in sent if m[1] != COMMAND_TOPIC or START_NS + 400_000_000 <= m[0] <= START_NS + 1_000_000_000])
    assert open_recorded(tmp_path).columns(0)["observation.state"][[0, -1], 0].tolist() == [8.0, 20.0]


def test_frames_in_which_nobody_drives_are_left_out_before_and_after(tmp_path: Path) -> None:
    def hold(sent: list[Message], held: range) -> list[Message]:
        for number, (_, _, msg) in enumerate(one for one in sent if one[1] == COMMAND_TOPIC):
            msg.run_id = 0 if number in held else 7
        return sent

    record_episode(tmp_path / "middle", CONTRACT, change=lambda sent: hold(sent, range(10, 20)))
    record_episode(tmp_path / "start", CONTRACT, change=lambda sent: hold(sent, range(10)))
    source = open_recorded(tmp_path)
    assert [episode.length for episode in source.episodes] == [40, 30]  # a pause in between is part of it
    assert source.columns(1)["observation.state"][0, 0] == 10.0
    record_episode(tmp_path / "never", CONTRACT, change=lambda sent: hold(sent, range(99)))
    with pytest.raises(DataError, match=r"never\.mcap: nobody drove in the episode"):
        open_recorded(tmp_path)


def test_the_index_is_made_once_and_travels_without_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vla_training.datasets.recorded import reader

    for name in ("a", "b"):
        record_episode(tmp_path / name, CONTRACT, Motion(seconds=0.5))
    first = open_recorded(tmp_path)
    image = first.images(1, STATIC, np.array([2]))
    monkeypatch.setattr(reader, "play", lambda *_: pytest.fail("the bag was played again"))
    again = pickle.loads(pickle.dumps(open_recorded(tmp_path)))
    assert again.spec == first.spec and again.episodes == first.episodes
    np.testing.assert_array_equal(again.images(1, STATIC, np.array([2])), image)


def test_failures_and_interrupted_recordings_are_skipped_and_told(tmp_path: Path) -> None:
    record_episode(tmp_path / "good", CONTRACT, Motion(seconds=0.5))
    record_episode(tmp_path / "bad", CONTRACT, Motion(seconds=0.5), outcome="failure")
    sent = sorted(messages(CONTRACT, Motion(seconds=0.5)), key=lambda message: message[0])
    write_bag(tmp_path / "torn", sent, None)
    source = open_recorded(tmp_path)
    assert [Path(episode.key).parent.name for episode in source.episodes] == ["good"]
    assert source.skipped == {"bad": "outcome failure", "torn": "no episode.json, the recording was interrupted"}
    assert len(open_recorded(tmp_path, outcomes=("success", "failure")).episodes) == 2
    with pytest.raises(DataError, match=r"torn: got no episode to use, .*torn: no episode.json, the recording was"):
        open_recorded(tmp_path / "torn")


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_off_file_is_named(tmp_path: Path, share: float) -> None:
    path = record_episode(tmp_path / "one", CONTRACT)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"one\.mcap: cannot be read as MCAP .*cut off or corrupt"):
        open_recorded(tmp_path)


def test_garbage_amid_the_file_is_told(tmp_path: Path) -> None:
    path = record_episode(tmp_path / "one", CONTRACT)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 9000] = bytes(range(250)) * 36
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"one\.mcap"):
        source = open_recorded(tmp_path)
        source.images(0, STATIC, np.arange(source.episodes[0].length))
        raise DataError(f"{path}: pixels alone were hit")  # raw pixels bear no checksum


def test_a_file_that_was_replaced_after_opening_is_told(tmp_path: Path) -> None:
    path = record_episode(tmp_path / "one", CONTRACT)
    source = open_recorded(tmp_path)
    other = record_episode(tmp_path / "two", CONTRACT, Motion(jitter_s=0.01, seed=8))
    path.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match=r"one\.mcap: /camera/static/image_raw: .*the file changed"):
        source.images(0, STATIC, np.array([3]))


@pytest.mark.parametrize("topic", ["/joint_states", "/camera/wrist/image_raw", "/tcp_pose", COMMAND_TOPIC])
def test_a_missing_topic_is_named(tmp_path: Path, topic: str) -> None:
    record_episode(tmp_path / "one", CONTRACT, change=lambda sent: [m for m in sent if m[1] != topic])
    with pytest.raises(DataError, match=rf"one\.mcap: no message on {topic}, which its contract names; .*known: /"):
        open_recorded(tmp_path)


def test_a_topic_of_another_type_is_named(tmp_path: Path) -> None:
    def swap(sent: list[Message]) -> list[Message]:
        text = make("std_msgs/msg/String", data="joints")
        return [(at, topic, text if topic == "/joint_states" else msg) for at, topic, msg in sent]

    record_episode(tmp_path / "one", CONTRACT, change=swap)
    with pytest.raises(DataError, match="/joint_states: got std_msgs/msg/String, expected sensor_msgs/msg/JointState"):
        open_recorded(tmp_path)


def test_two_contracts_in_one_folder_are_refused(tmp_path: Path) -> None:
    record_episode(tmp_path / "a", CONTRACT, Motion(seconds=0.5))
    record_episode(tmp_path / "b", tabletop(48), Motion(seconds=0.5))
    with pytest.raises(DataError, match=r"b: its contract is not that of .*a: cameras: .*'width': 48.* here"):
        open_recorded(tmp_path)


def test_commands_of_another_contract_are_refused(tmp_path: Path) -> None:
    def rename(sent: list[Message]) -> list[Message]:
        for _, topic, msg in sent:
            if topic == COMMAND_TOPIC:
                msg.names = ["j1", *msg.names[1:]]
        return sent

    record_episode(tmp_path / "one", CONTRACT, change=rename)
    with pytest.raises(DataError, match=r"one\.mcap: /vla/command: robot command: names: got \['j1'"):
        open_recorded(tmp_path)


def test_a_clock_that_goes_back_is_refused(tmp_path: Path) -> None:
    def reset(sent: list[Message]) -> list[Message]:
        return sent + [m for m in sent if m[0] >= START_NS + NS_PER_S]  # the simulator was reset, time began anew

    record_episode(tmp_path / "one", CONTRACT, change=reset, stop_ns=START_NS + 3 * NS_PER_S)
    with pytest.raises(DataError, match=r"one\.mcap: .*the clock went back by 0\.9\d+ s"):
        open_recorded(tmp_path)


def test_receive_times_of_another_clock_are_refused(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, change=lambda sent: [(at + 10**18, *rest) for at, *rest in sent])
    with pytest.raises(DataError, match=r"of another clock; record with the clock of the streams \(use_sim_time\)"):
        open_recorded(tmp_path)


@pytest.mark.parametrize("stream", ["/camera/static/image_raw", "/camera/static/image_raw /joint_states /tcp_pose"])
def test_a_stream_that_stands_still_is_refused(tmp_path: Path, stream: str) -> None:
    def stop(sent: list[Message]) -> list[Message]:
        silent = range(START_NS + 300_000_000, START_NS + 1_500_000_000)
        return [m for m in sent if not (m[1] in stream and m[0] in silent)]

    record_episode(tmp_path / "one", CONTRACT, Motion(seconds=3.0), change=stop)
    words = r"a hole in the episode, 1.* s after its start: no complete observation for 1.* s: camera.static"
    with pytest.raises(DataError, match=rf"one\.mcap: {words}"):
        open_recorded(tmp_path)


def test_streams_that_end_before_the_episode_are_refused(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, stop_ns=START_NS + 4 * NS_PER_S)
    with pytest.raises(DataError, match=r"one\.mcap: no complete observation in the last 2\.0 s of the episode"):
        open_recorded(tmp_path)


@pytest.mark.parametrize(("topic", "field", "value", "words"), [
    ("/joint_states", "position", np.full(8, np.nan), "expected finite positions"),
    (COMMAND_TOPIC, "values", np.full(7, np.nan), "expected finite values"),
    ("/camera/static/image_raw", "encoding", "16UC1", "got encoding '16UC1', expected rgb8"),
])
def test_messages_that_cannot_be_used_are_named(tmp_path: Path, topic: str, field: str, value: Any, words: str) -> None:
    def spoil(sent: list[Message]) -> list[Message]:
        setattr([msg for _, other, msg in sent if other == topic][8], field, value)
        return sent

    record_episode(tmp_path / "one", CONTRACT, change=spoil)
    with pytest.raises(DataError, match=rf"one\.mcap.*{words}"):
        open_recorded(tmp_path).images(0, STATIC, np.arange(20))


@pytest.mark.parametrize(("field", "value", "words"), [
    ("instruction", " ", "instruction: got an empty one"),
    ("contract_hash", "0" * 64, "contract_hash: got 0000"),
    ("outcome", "perfect", "outcome: got 'perfect', expected 'success'"),
    ("instructions", "x", "unknown key 'instructions'; did you mean 'instruction'"),
])
def test_a_record_that_is_wrong_is_refused(tmp_path: Path, field: str, value: str, words: str) -> None:
    file = record_episode(tmp_path / "one", CONTRACT, Motion(seconds=0.5)).parent / EPISODE_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(DataError, match=rf"episode\.json: {words}"):
        open_recorded(tmp_path)


def test_unknown_names_get_the_nearest(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, Motion(seconds=0.5))
    source = open_recorded(tmp_path / "one")
    with pytest.raises(DataError, match="no column 'actions'; did you mean 'action'"):
        source.columns(0, ["actions"])
    with pytest.raises(DataError, match="no camera 'static'"):
        source.images(0, "static", np.array([0]))
    with pytest.raises(DataError, match="expected some of 0 to 9"):
        source.images(0, STATIC, np.array([10]))


def test_a_folder_without_bags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no episode to use, .*no bag in it"):
        open_recorded(tmp_path)
    folder = tmp_path / "two_files"
    sent = sorted(messages(CONTRACT, Motion(seconds=0.5)), key=lambda message: message[0])
    path = write_bag(folder, sent, record_of(CONTRACT, 0.5))
    (folder / "more.mcap").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="got 2 MCAP files, expected one"):
        open_recorded(tmp_path)

"""Interrupted recordings: killed, cut off anywhere, damaged, on a full disk; what was written comes back, whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from make_bags import tabletop
from recorder_bench import CONTRACT, Bench, Motion, read_bag, small_disk
from rosbags.rosbag2 import Reader

from vla_policy.errors import DataError
from vla_policy.recorder import recover as recovery
from vla_policy.recorder.bag import RosbagsWriter
from vla_policy.recorder.recorder import RecorderState
from vla_policy.recorder.recover import main, recover
from vla_policy.recording import RUNNING_FILE, read_episode, write_running
from vla_training.datasets.recorded import open_recorded

LARGE = 128  # px: two seconds of two such cameras take four chunks
DEADLINE_S = 60.0
RECORD = """
import sys, time
from pathlib import Path
from make_bags import tabletop
from recorder_bench import Bench, Motion
bench = Bench(Path(sys.argv[1]))
bench.begin()
bench.play(Motion(seconds=1.0))
bench.recorder.stop(bench.now_ns, "success")
bench.until_ended()
bench.begin()
bench.recorder.mark("success")
while True:
    bench.play(Motion(seconds=0.5))
    time.sleep(0.05)
"""


def recorded(output: Path, open_bag: Callable = RosbagsWriter, size: int = 8) -> tuple[Path, list]:
    """An episode without its end, as a recorder leaves it that is killed in the last moment, and its messages."""
    bench = Bench(output, open_bag, tabletop(size))
    folder = bench.begin()
    bench.play(Motion(seconds=2.0))
    running = bench.recorder.running
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    messages = read_bag(folder)
    (folder / "episode.json").unlink()
    (folder / "metadata.yaml").unlink()
    write_running(folder, running)
    return folder, messages


def cut(folder: Path, share: float) -> None:
    """Leave the first part of its MCAP file."""
    path = folder / f"{folder.name}.mcap"
    os.truncate(path, int(share * path.stat().st_size))


def test_a_recorder_that_was_killed_loses_a_second_at_most(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", RECORD, str(tmp_path)],
                               env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    whole, torn = tmp_path / "episode_0000", tmp_path / "episode_0001"
    bag = torn / "episode_0001.mcap"
    end_s = time.monotonic() + DEADLINE_S
    while not (bag.exists() and bag.stat().st_size > 200_000):
        assert time.monotonic() < end_s and process.poll() is None, "nothing was recorded"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE_S)
    before = read_bag(whole), read_episode(whole)
    assert not (torn / "episode.json").exists() and not (torn / "metadata.yaml").exists()
    with pytest.raises(DataError, match=rf"recover it: ros2 run vla_policy recover_episode {torn}"):
        read_episode(torn)
    record = recover(torn)
    assert (record.outcome, record.operator, record.instruction) == ("unknown", "Ada", "push the button")
    assert "the recording was interrupted and recovered; it is whole until" in record.note
    assert "it had been marked as success, of which the end may be missing" in record.note
    assert sorted(path.name for path in torn.iterdir()) == ["episode.json", "episode_0001.mcap", "metadata.yaml"]
    assert sum(topic.messages for topic in record.topics.values()) == len(read_bag(torn)) >= 100
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".cache") == ["episode_0000", "episode_0001"]
    assert before == (read_bag(whole), read_episode(whole))
    assert {Path(episode.key).parent.name for episode in open_recorded(tmp_path).episodes} == {whole.name, torn.name}


@pytest.mark.parametrize("share", [0.2, 0.4, 0.61, 0.93, 0.999, 1.0])
def test_a_file_that_is_cut_off_anywhere_gives_what_was_before(tmp_path: Path, share: float) -> None:
    folder, messages = recorded(tmp_path)
    cut(folder, share)
    record = recover(folder)
    saved = read_bag(folder)
    assert saved == messages[: len(saved)] and len(saved) >= int(share * len(messages)) - 20
    assert record.stop_ns == saved[-1][1] and record == read_episode(folder)


def test_what_publishers_offered_and_the_types_come_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    bench.offer("/vla/command", reliable=True, transient_local=True)
    bench.offer("/joint_states", reliable=False, transient_local=False)
    bench.play()
    running = bench.recorder.running
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    with Reader(folder) as bag:
        before = [(one.topic, one.msgtype, one.msgdef, one.digest, one.ext) for one in bag.connections]
    (folder / "episode.json").unlink()
    write_running(folder, running)
    cut(folder, 0.9)
    recover(folder)
    with Reader(folder) as bag:
        assert [(one.topic, one.msgtype, one.msgdef, one.digest, one.ext) for one in bag.connections] == before
    qos = {topic: ext.offered_qos_profiles[0] for topic, _, _, _, ext in before}
    assert (qos["/vla/command"].durability.name, qos["/joint_states"].reliability.name) == (
        "TRANSIENT_LOCAL", "BEST_EFFORT")


def test_compressed_chunks_come_back_and_the_last_one_is_lost(tmp_path: Path) -> None:
    folder, messages = recorded(tmp_path, partial(RosbagsWriter, compressed=True), LARGE)
    cut(folder, 0.8)
    recover(folder)
    saved = read_bag(folder)
    assert saved == messages[: len(saved)] and len(saved) > 0.2 * len(messages)


def test_a_damaged_chunk_is_left_out_and_told(tmp_path: Path) -> None:
    folder, messages = recorded(tmp_path, partial(RosbagsWriter, compressed=True), LARGE)
    path = folder / f"{folder.name}.mcap"
    data = bytearray(path.read_bytes())
    second = data.index(b"zstd", data.index(b"zstd") + 10)
    data[second + 12 : second + 40] = bytes(28)
    path.write_bytes(data)
    record = recover(folder)
    assert "1 chunks of it were damaged and left out" in record.note
    assert 0 < len(read_bag(folder)) < len(messages)


def test_nothing_whole_is_told_and_nothing_touched(tmp_path: Path) -> None:
    folder, _ = recorded(tmp_path)
    for share, words in ((0.0, "no message of the episode is whole"), (0.0001, "no message of the episode is whole")):
        cut(folder, share)
        (folder / f"{folder.name}.mcap").write_bytes(b"\x89MCAP0\r\n" + b"\0" * 5)
        with pytest.raises(DataError, match=words):
            recover(folder)
    (folder / f"{folder.name}.mcap").write_bytes(b"no bag at all")
    with pytest.raises(DataError, match="got no MCAP file"):
        recover(folder)
    assert sorted(path.name for path in folder.iterdir()) == [f"{folder.name}.mcap", RUNNING_FILE]


def test_a_whole_episode_and_one_in_the_making_are_let_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = bench.begin()
    bench.play()
    with pytest.raises(DataError, match="is being recorded or recovered by another process"):
        recover(folder)
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    with pytest.raises(DataError, match=r"is whole, it has its episode\.json"):
        recover(folder)


def test_a_full_disk_while_recovering_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, messages = recorded(tmp_path)
    cut(folder, 0.9)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "write_episode", full)
        with pytest.raises(OSError, match="No space left"):
            recover(folder)
    recover(folder)
    assert read_bag(folder) == messages[: len(read_bag(folder))]


def test_a_recovery_that_was_killed_at_its_last_step_is_ended_by_the_next(tmp_path: Path) -> None:
    folder, _ = recorded(tmp_path)
    recover(folder)
    shutil.copytree(folder, tmp_path / ".recovering" / folder.name)
    shutil.rmtree(folder)
    with pytest.raises(SystemExit) as left:
        run([str(tmp_path)])
    assert left.value.code == 0 and read_episode(folder).instruction == "push the button"
    assert not (tmp_path / ".recovering").exists()


# ---- the command ----------------------------------------------------------------------------------------------------


def run(words: list[str]) -> None:
    """The command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recover_episode", *words])
        main()


def test_the_command_recovers_all_of_a_folder_and_keeps_on_demand(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in ("one", "two"):
        folder, _ = recorded(tmp_path / name)
        cut(folder, 0.9)
        shutil.move(folder, tmp_path / "demos" / name)
        os.rename(tmp_path / "demos" / name / "episode_0000.mcap", tmp_path / "demos" / name / f"{name}.mcap")
    with pytest.raises(SystemExit) as left:
        run([str(tmp_path / "demos"), "--keep"])
    assert left.value.code == 0
    assert caplog.text.count("recovered, ") == 2
    assert sorted(path.name for path in (tmp_path / "demos/.recovering").iterdir()) == ["one.torn", "two.torn"]
    assert len(open_recorded(tmp_path / "demos").episodes) == 2
    with pytest.raises(SystemExit):
        run([str(tmp_path / "demos")])
    assert "no interrupted episode in it" in caplog.text


def test_what_is_not_known_can_be_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = recorded(tmp_path)
    (folder / RUNNING_FILE).unlink()
    with pytest.raises(SystemExit) as left:
        run([str(folder)])
    assert left.value.code == 1 and "give what it was with --contract and --instruction" in caplog.text
    contract = tmp_path / "contract.json"
    contract.write_text(json.dumps(CONTRACT.model_dump(mode="json")))
    with pytest.raises(SystemExit) as left:
        run([str(folder), "--contract", str(contract), "--instruction", "push the button"])
    assert left.value.code == 0 and read_episode(folder).contract == CONTRACT


# ---- a disk that is full --------------------------------------------------------------------------------------------


@pytest.fixture
def full_soon(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def test_a_full_disk_ends_the_episode_and_spares_the_others(full_soon: Path, tmp_path: Path) -> None:
    bench = Bench(full_soon)
    whole = bench.begin()
    bench.play()
    bench.recorder.stop(bench.now_ns)
    bench.until_ended()
    messages = read_bag(whole)
    torn = bench.begin()
    for _ in range(200):
        bench.hear("/camera/static/image_raw", b"\0\1\0\0" + bytes(50_000))
        bench.advance(0.05)
    words = bench.until_ended()
    assert words.startswith(f"writing failed: {torn}: No space left on device; what was written can be recovered")
    assert bench.recorder.state is RecorderState.FAILED and read_bag(whole) == messages
    with pytest.raises(OSError, match="No space left on device"):
        recover(torn)
    roomy = tmp_path / "roomy" / torn.name
    shutil.copytree(torn, roomy)
    record = recover(roomy)
    assert record.topics["/camera/static/image_raw"].messages >= 20

"""Conversion: what goes in comes out, whatever interrupts it; what is bad is named; nothing half-done looks whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_bags import record_episode, tabletop
from make_calvin import calvin_frame, write_calvin
from make_lerobot import CAMERAS, camera_frame, episode_rows, write_lerobot

from vla_policy.errors import ConfigError, DataError
from vla_training.convert import main
from vla_training.datasets.lerobot import LeRobotSource, from_source
from vla_training.datasets.lerobot.from_source import convert, plan_conversion
from vla_training.datasets.lerobot.video import VideoWriter
from vla_training.datasets.registry import open_source

SMALL = {"rgb_static": (20, 24), "rgb_gripper": (7, 9)}
DATA = "data/chunk-000/file-000.parquet"


def digest(root: Path) -> str:
    """Of all files and names but the note of how it came about."""
    found = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.name != "conversion.json"):
        found.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def make_bad(root: Path) -> Path:
    """Episode 1 with a NaN in its actions, episode 2 with a video that has ended before."""
    table = pq.read_table(root / DATA)
    actions = np.array(table["action"].to_pylist(), np.float32)
    actions[8, 2] = np.nan
    rows = pa.FixedSizeListArray.from_arrays(pa.array(actions.reshape(-1)), 7)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", rows), root / DATA)
    short = write_lerobot(root.parent / "short", (6, 5, 2))
    video = f"videos/{CAMERAS[1]}/chunk-000/file-000.mp4"
    shutil.copy(short / video, root / video)
    return root


def test_calvin_becomes_lerobot(tmp_path: Path) -> None:
    write_calvin(tmp_path / "training", (20, 12), ((2, 9), (21, 30)), sizes=SMALL)
    assert main([str(tmp_path / "training"), str(tmp_path / "out")]) == 0
    data, source = LeRobotSource(tmp_path / "out"), open_source(tmp_path / "training")
    assert data.spec.rate_hz == 30.0 and data.spec.cameras == SMALL
    assert [episode.instructions for episode in data.episodes] == [episode.instructions for episode in source.episodes]
    assert data.episodes[1].task == "push_red_block_left" and data.episodes[1].extra["first_frame"] == 21
    for number, start in enumerate((2, 21)):
        for name, values in source.columns(number).items():
            assert np.array_equal(data.columns(number, [name])[name], values), name
        images = data.images(number, "rgb_gripper", np.array([5])).astype(int)
        assert np.abs(images[0] - calvin_frame(start + 5, SMALL)["rgb_gripper"]).max() <= 12  # noise costs H.264 more
    facts = json.loads((tmp_path / "out/meta/conversion.json").read_text())
    assert facts["format"] == "calvin" and facts["skipped"] == [] and facts["command"].startswith("convert ")
    assert not (tmp_path / "out.partial").exists()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lerobot(tmp_path_factory.mktemp("data") / "set", (6, 5, 7, 4))


def test_workers_and_parts_change_no_byte(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_source, "PART_FRAMES", 10)
    monkeypatch.setattr(from_source, "BLOCK_FRAMES", 2)
    assert main([str(source), str(tmp_path / "one")]) == 0
    assert main([str(source), str(tmp_path / "two"), "--workers", "2"]) == 0
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    data = LeRobotSource(tmp_path / "one")
    assert len(list((tmp_path / "one/data").rglob("*.parquet"))) == 2
    for episode, length in enumerate((6, 5, 7, 4)):
        assert np.array_equal(data.columns(episode)["action"], episode_rows(episode, length)["action"])
        frames = data.images(episode, CAMERAS[1], np.arange(length)).astype(int)
        assert np.abs(frames - [camera_frame(1, episode, frame, 48, 64) for frame in range(length)]).max() <= 8


CONVERT_SLOWLY = """
import sys, time
from vla_training.datasets.lerobot import from_source, video
from vla_training.convert import main
from_source.PART_FRAMES = 10
write = video.VideoWriter.write
def slow(self, frame):
    write(self, frame)
    time.sleep(0.05)
video.VideoWriter.write = slow
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_conversion_goes_on_where_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", CONVERT_SLOWLY, str(source), str(output)])
    part = tmp_path / "out.partial/parts/000000.json"
    deadline = time.monotonic() + 120
    while not part.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert part.is_file() and not output.exists()
    with pytest.raises(DataError, match=r"no meta/info\.json"):
        LeRobotSource(tmp_path / "out.partial")
    monkeypatch.setattr(from_source, "PART_FRAMES", 10)
    outcome = convert(plan_conversion(open_source(source), output), 1, {})
    assert outcome.resumed == 1 and outcome.episodes == 4 and outcome.frames == 22
    convert(plan_conversion(open_source(source), tmp_path / "whole"), 1, {})
    assert digest(output) == digest(tmp_path / "whole")


def test_bad_episodes_stop_it_and_are_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = make_bad(Path(shutil.copytree(source, tmp_path / "set")))
    assert main([str(bad), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert f"{bad / DATA}, episode 1: column 'action' is not finite at frame 2" in said
    assert "--skip-bad" in said
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "out.partial").rglob("*.mp4"))


def test_bad_episodes_can_be_left_out_and_are_listed(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = make_bad(Path(shutil.copytree(source, tmp_path / "set")))
    assert main([str(bad), str(tmp_path / "out"), "--skip-bad"]) == 0
    said = capsys.readouterr().out
    assert "out: 1 episodes, 6 frames" in said and said.count("left out: ") == 3
    skipped = json.loads((tmp_path / "out/meta/conversion.json").read_text())["skipped"]
    assert [skip["episode"].split(", ")[-1] for skip in skipped] == ["episode 1", "episode 2", "episode 3"]
    assert "not finite at frame 2" in skipped[0]["reason"] and "no frame at" in skipped[1]["reason"]
    data = LeRobotSource(tmp_path / "out")
    assert [episode.length for episode in data.episodes] == [6]
    frames = data.images(0, CAMERAS[1], np.arange(6)).astype(int)
    assert np.abs(frames - [camera_frame(1, 0, frame, 48, 64) for frame in range(6)]).max() <= 8


def test_a_full_disk_is_told_before_and_while_writing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_conversion(open_source(source), tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(from_source.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        with pytest.raises(DataError, match=r"out: needs about 0\.00 GB, 0\.00 GB are free; make room"):
            convert(plan, 1, {})

    def full(self: VideoWriter, frame: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "write", full)
        with pytest.raises(DataError, match=r"out\.partial: No space left on device; make room"):
            convert(plan, 1, {})
    assert not (tmp_path / "out").exists() and not list((tmp_path / "out.partial").rglob("*.mp4"))
    assert convert(plan, 1, {}).episodes == 4


def test_what_is_there_is_not_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="out: already there"):
        plan_conversion(open_source(source), tmp_path / "out")
    other = write_lerobot(tmp_path / "other", (3,))
    plan = plan_conversion(open_source(source), tmp_path / "new")
    from_source._begin(plan_conversion(open_source(other), tmp_path / "new"))
    with pytest.raises(ConfigError, match=r"new\.partial: begun with other data or options"):
        convert(plan, 1, {})
    shutil.rmtree(tmp_path / "new.partial")
    (tmp_path / "new.partial").mkdir()
    with pytest.raises(ConfigError, match=r"new\.partial: already there, and no conversion of this program"):
        convert(plan, 1, {})


def test_the_rate_is_told_once(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--rate-hz is 5, the data's is 10"):
        plan_conversion(open_source(source), tmp_path / "out", rate_hz=5.0)
    bridge = Path(__file__).resolve().parents[1] / "fixtures/rlds/bridge_dataset"
    with pytest.raises(ConfigError, match="nothing tells it; give --rate-hz"):
        plan_conversion(open_source(bridge), tmp_path / "out")


def test_rlds_becomes_lerobot(tmp_path: Path) -> None:
    bridge = Path(__file__).resolve().parents[1] / "fixtures/rlds/bridge_dataset"
    assert main([str(bridge), str(tmp_path / "out"), "--rate-hz", "5"]) == 0
    source, data = open_source(bridge), LeRobotSource(tmp_path / "out")
    assert data.spec.rate_hz == 5.0 and len(data.episodes) == len(source.episodes)
    assert set(data.spec.cameras) == {name.replace("/", ".") for name in source.spec.cameras}
    for name in source.spec.columns:
        found = data.columns(0, [name.replace("/", ".")])[name.replace("/", ".")]
        wanted = source.columns(0, [name])[name]
        assert np.array_equal(found.reshape(wanted.shape), wanted), name


def test_our_bags_become_lerobot_and_keep_their_contract(tmp_path: Path) -> None:
    record_episode(tmp_path / "bags/first", tabletop(32))
    assert main([str(tmp_path / "bags"), str(tmp_path / "out")]) == 0
    source, data = open_source(tmp_path / "bags"), LeRobotSource(tmp_path / "out")
    assert data.spec.recorded_with == source.spec.recorded_with is not None
    assert np.array_equal(data.columns(0, ["action"])["action"], source.columns(0, ["action"])["action"])
    assert data.images(0, CAMERAS[0], np.array([3])).shape == (1, 32, 32, 3)


def test_an_unknown_folder_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert "no such folder" in capsys.readouterr().out

"""Data sets become bags: bag to v3 to bag to v3 gives equal frames; what fits no recording is refused in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from make_bags import START_NS, Motion, intervention, record_episode, tabletop
from make_lerobot import write_lerobot

from vla_policy.contract import RobotContract
from vla_policy.recording import EPISODE_FILE, read_episode
from vla_policy.types import NS_PER_S
from vla_training.convert import main
from vla_training.datasets.config import Source
from vla_training.datasets.recorded import open_recorded
from vla_training.datasets.recorded.writer import plan_bags, write_bags
from vla_training.datasets.registry import open_source
from vla_training.inspection.survey import survey

CONTRACT = tabletop(32)
UNEVEN = Motion(seconds=3.0, camera_hz=30.0, state_hz=100.0, camera_phase_s=0.011, command_phase_s=0.007, delay_s=0.006,
                jitter_s=0.003, seed=4)
EXACT = ("observation.state", "observation.held", "intervention")
H264_ERROR = 16  # of 255, at most, in one pixel
STATIC = "observation.images.static"


def contract_file(folder: Path, contract: RobotContract = CONTRACT) -> str:
    """A contract as `--robot` takes it."""
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(contract.model_dump(mode="json")), encoding="utf-8")
    return str(path)


def record_two(folder: Path) -> Path:
    """A set of two episodes; in the second an operator takes over for a while, and some messages never came."""
    def disturb(sent: list) -> list:
        lost = (START_NS + NS_PER_S, START_NS + NS_PER_S + 160_000_000)
        kept = [one for one in sent if not (lost[0] < one[0] < lost[1] and one[1].startswith("/camera"))]
        taken = [intervention(START_NS + 500_000_000, True), intervention(START_NS + 1_500_000_000, False)]
        return sorted([*kept, *taken], key=lambda one: one[0])

    record_episode(folder / "one", CONTRACT, UNEVEN)
    record_episode(folder / "two", CONTRACT, UNEVEN, disturb, outcome="unknown", operator="other", seed=None)
    return folder


def test_bag_to_v3_to_bag_to_v3_gives_equal_frames(tmp_path: Path) -> None:
    bags, robot = record_two(tmp_path / "bags"), contract_file(tmp_path)
    first, back, second = (str(tmp_path / name) for name in ("v3", "back", "again"))
    assert main([str(bags), first, "--robot", robot]) == 0
    assert main([first, back, "--to", "bag", "--robot", robot, "--workers", "2"]) == 0
    assert main([back, second]) == 0
    recorded, before, between, after = map(open_source, (bags, first, back, second))
    assert before.columns(1)["observation.held"].any() and before.columns(1)["intervention"].any()
    for episode in range(2):
        told = [data.columns(episode) for data in (recorded, before, between, after)]
        for name in EXACT:
            assert all(np.array_equal(told[0][name].reshape(-1), other[name].reshape(-1)) for other in told[1:]), name
        for name in ("action", "observation.pose", "timestamp"):
            for other in told[1:]:
                same = told[0][name].reshape(other[name].shape)
                np.testing.assert_allclose(other[name], same, atol=1e-6, err_msg=name)
        shown = np.flatnonzero(~told[0]["observation.held"].reshape(-1))
        images = [data.images(episode, STATIC, shown).astype(int) for data in (recorded, before, between, after)]
        assert np.array_equal(images[1], images[2])  # a bag holds the decoded frames as they are
        for coded, plain in ((images[1], images[0]), (images[3], images[2])):
            assert np.abs(coded - plain).max() <= H264_ERROR and np.abs(coded - plain).mean() <= 2
    surveys = [survey(data) for data in (recorded, before)]  # what `inspect` tells of both
    assert surveys[0].gaps and [(gap.frame, gap.missing) for gap in surveys[0].gaps] == [
        (gap.frame, gap.missing) for gap in surveys[1].gaps]
    records = [read_episode(Path(back) / f"episode_00000{number}") for number in range(2)]
    assert [(one.outcome, one.operator, one.seed, one.driver) for one in records] == [
        ("success", "someone", 3, "operator"), ("unknown", "other", None, "operator")]
    assert records[0].task == "press_button" and records[0].contract == CONTRACT


def test_writing_goes_on_where_it_was_and_refuses_another_conversion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags, robot, out = record_two(tmp_path / "bags"), contract_file(tmp_path), tmp_path / "out"
    command = [str(bags), str(out), "--to", "bag", "--robot", robot]
    assert main(command) == 0
    kept = (out / "episode_000000" / EPISODE_FILE).stat().st_mtime_ns
    (out / "episode_000001" / EPISODE_FILE).unlink()  # as a killed conversion leaves it
    capsys.readouterr()
    assert main(command) == 0
    assert "2 episodes" in (told := capsys.readouterr().out) and "1 episodes of them by an earlier run" in told
    assert (out / "episode_000000" / EPISODE_FILE).stat().st_mtime_ns == kept
    assert len(open_recorded(out, ("success", "unknown")).episodes) == 2
    record_episode(bags / "three", CONTRACT, UNEVEN)
    assert main(command) == 1
    assert "begun with other data or another contract" in capsys.readouterr().out
    assert main([str(bags), str(bags), "--to", "bag", "--robot", robot]) == 1
    assert "already there; expected a new folder" in capsys.readouterr().out


def test_an_episode_without_instruction_becomes_no_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bags, v3, robot = record_two(tmp_path / "bags"), tmp_path / "v3", contract_file(tmp_path)
    assert main([str(bags), str(v3)]) == 0
    silent = open_source(v3)
    silent.episodes[0] = type(silent.episodes[0])("episode 0", silent.episodes[0].length, ("  ",))
    plan = plan_bags(Source(path=str(v3)), silent, CONTRACT, tmp_path / "out", skip_bad=True)
    done = write_bags(plan, 1, {})
    assert done.episodes == 1 and "episode 0: got no instruction" in done.skipped[0].reason
    assert "got no instruction" in json.loads((tmp_path / "out/conversion.json").read_text())["skipped"][0]["reason"]
    assert not (tmp_path / "out/episode_000000").exists()
    assert main([str(v3), str(tmp_path / "new"), "--to", "bag", "--robot", robot]) == 0  # as published it has words


def test_what_is_not_the_contracts_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bags, v3 = record_two(tmp_path / "bags"), tmp_path / "v3"
    assert main([str(bags), str(v3)]) == 0
    capsys.readouterr()
    assert main([str(v3), str(tmp_path / "a"), "--to", "bag"]) == 1
    assert "--to bag: got no --robot" in capsys.readouterr().out
    assert main([str(v3), str(tmp_path / "a"), "--to", "bag", "--robot", "tabletop"]) == 1
    assert "got images of 32x32, expected 224x224 by contract 'tabletop'" in capsys.readouterr().out
    assert main([str(v3), str(tmp_path / "b"), "--to", "bag", "--robot", "ur5e"]) == 1
    assert "ur5e" in capsys.readouterr().out
    other = write_lerobot(tmp_path / "other", (5,))
    assert main([str(other), str(tmp_path / "c"), "--to", "bag", "--robot", "tabletop"]) == 1
    assert "joint 'finger_joint' of contract 'tabletop' is not mapped" in capsys.readouterr().out


def test_recordings_of_another_contract_interrupted_or_failed_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = record_two(tmp_path / "bags")
    assert main([str(bags), str(tmp_path / "a"), "--robot", "tabletop"]) == 1
    assert "recorded with contract 'tabletop'" in (told := capsys.readouterr().out) and "'width': 32" in told
    record_episode(bags / "failed", CONTRACT, UNEVEN, outcome="failure")
    shutil.copytree(bags / "one", bags / "cut")
    (bags / "cut" / EPISODE_FILE).unlink()
    assert main([str(bags), str(tmp_path / "b"), "--outcome", "success"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "b: 1 episodes" in told
    for reason in ("failed: outcome failure", "two: outcome unknown", "cut: no episode.json"):
        assert reason in told
    skipped = json.loads((tmp_path / "b/meta/conversion.json").read_text())["skipped"]
    assert {one["episode"] for one in skipped} == {"failed", "two", "cut"}
    assert main([str(tmp_path / "b"), str(tmp_path / "c"), "--outcome", "success"]) == 1
    assert "expected recorded bags" in capsys.readouterr().out

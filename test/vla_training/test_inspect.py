"""Inspect: counts, an injected gap, NaN, outlier and constant column are found; pictures show what was recorded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fabricated import LENGTHS, write_dataset

from vla_policy.errors import DataError
from vla_training.datasets.source import Column, EpisodeInfo, SourceSpec
from vla_training.inspect import main
from vla_training.inspection import columns as columns_module
from vla_training.inspection.columns import ColumnTally
from vla_training.inspection.pictures import Sheet, draw_contact_sheet, draw_histograms, draw_lengths
from vla_training.inspection.survey import Gap, chosen_episodes, is_action, survey

RATE_HZ = 10.0


@dataclass
class MadeUp:
    """An `EpisodeSource` in memory: three episodes of two tasks, all as it should be until a test spoils it."""

    root: Path = Path("sets/made_up")
    lengths: tuple[int, ...] = (20, 30, 40)
    data: list[dict[str, np.ndarray]] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        for length in self.lengths:
            self.data.append({
                "timestamp": np.arange(length) / RATE_HZ,
                "frame_index": np.arange(length),
                "action": rng.normal(size=(length, 4, 2)),
                "observation.state": rng.normal(size=(length, 2)),
                "reward": rng.normal(size=length),
            })
        self.spec = SourceSpec("made_up", RATE_HZ, {"static": (8, 8), "wrist": (8, 8)}, {
            "timestamp": Column("float64", ()), "frame_index": Column("int64", ()),
            "action": Column("float64", (4, 2), ("x", "gripper")), "observation.state": Column("float64", (2,)),
            "reward": Column("float64", ()), "embedding": Column("float64", (512,)), "note": Column("str", ()),
        }, "0")
        sentences = ("open the drawer", "lift the block", "open the drawer")
        self.episodes = [
            EpisodeInfo(f"sets/made_up/file-{number}", length, (text,), text.replace(" ", "_"))
            for number, (length, text) in enumerate(zip(self.lengths, sentences, strict=True))
        ]

    def columns(self, episode: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        if episode in self.broken:
            raise DataError(self.broken[episode])
        assert names is not None and "embedding" not in names and "note" not in names, "no person reads these"
        return {name: self.data[episode][name] for name in names}

    def images(self, episode: int, camera: str, frames: np.ndarray) -> np.ndarray:
        if camera == "wrist" and episode == 1:
            raise DataError("file-1.mp4: truncated")
        shade = 60 * (episode + 1)
        return np.full((len(frames), 8, 8, 3), shade, np.uint8)


def findings(source: MadeUp, **options: Any) -> list[str]:
    return list(survey(source, **options).findings())


def test_sound_data_gives_counts_and_no_finding() -> None:
    found = survey(MadeUp())
    assert list(found.findings()) == []
    assert (found.episodes, found.frames, found.read) == (3, 90, 3) and list(found.lengths) == [20, 30, 40]
    assert found.tasks == {"open_the_drawer": 2, "lift_the_block": 1}
    assert found.sentences == {"open the drawer": 2, "lift the block": 1}
    assert found.rates_hz == pytest.approx([10.0, 10.0, 10.0]) and found.dropped_frames == 0
    (action,) = found.actions
    assert action.dimensions == ("x", "gripper") and action.rows == 90 * 4
    assert set(found.columns) == {"action", "observation.state", "reward"}
    assert found.columns["observation.state"].dimensions == ("[0]", "[1]")


def test_dropped_frames_are_found_by_their_timestamps() -> None:
    source = MadeUp()
    source.data[1]["timestamp"][12:] += 0.3  # three frames are missing
    source.data[2]["timestamp"][5:] += 0.1
    found = survey(source)
    assert found.gaps == [Gap("sets/made_up/file-1", 11, 3), Gap("sets/made_up/file-2", 4, 1)]
    assert found.dropped_frames == 4
    assert list(found.findings()) == [
        "frames: 4 are missing in 2 gaps, the longest, of 3, behind sets/made_up/file-1, frame 11"]


def test_frames_that_repeat_the_one_before_are_dropped_ones() -> None:
    source = MadeUp()
    source.spec.columns["observation.held"] = Column("bool", ())
    for columns in source.data:
        columns["observation.held"] = np.zeros(len(columns["timestamp"]), np.bool_)
    assert findings(source) == []
    source.data[0]["observation.held"][[3, 4, 19]] = True
    found = survey(source)
    assert found.gaps == [Gap("sets/made_up/file-0", 2, 2), Gap("sets/made_up/file-0", 18, 1)]
    assert found.dropped_frames == 3 and "observation.held" not in found.columns


def test_stamps_in_nanoseconds_that_jitter_are_no_gaps() -> None:
    source = MadeUp()
    jitter = np.random.default_rng(0)
    for columns in source.data:
        seconds = columns["timestamp"] + jitter.uniform(-0.02, 0.02, len(columns["timestamp"]))
        columns["timestamp"] = (1_700_000_000_000_000_000 + seconds * 1e9).astype(np.int64)
    found = survey(source)
    assert found.gaps == [] and found.rates_hz == pytest.approx([10.0] * 3, rel=0.1)


def test_another_rate_than_the_published_one_is_found() -> None:
    source = MadeUp()
    for columns in source.data:
        columns["timestamp"] = columns["timestamp"] / 2
    assert findings(source) == ["rate: 10 Hz was published, 20 Hz is what the timestamps say"]


def test_time_that_stands_still_is_found() -> None:
    source = MadeUp()
    source.data[0]["timestamp"][7] = source.data[0]["timestamp"][6]
    assert findings(source) == ["sets/made_up/file-0: its timestamps do not grow at frame 7"]


def test_numbers_that_are_none_are_found() -> None:
    source = MadeUp()
    source.data[2]["action"][9, 1, 0] = np.nan
    source.data[2]["action"][11, 0, 1] = np.inf
    assert findings(source) == [
        "action: 2 rows in 1 episodes are not finite, first nan at sets/made_up/file-2, frame 9"]


def test_constant_columns_are_found() -> None:
    source = MadeUp()
    for columns in source.data:
        columns["action"][..., 1] = 0.5
    assert findings(source) == ["action: gripper never changes"]


def test_an_outlier_is_found_where_it_stands() -> None:
    source = MadeUp()
    source.data[0]["observation.state"][13, 1] = -400.0
    assert findings(source) == [
        "observation.state: [1] is -400 at sets/made_up/file-0, frame 13, far outside of its 1st to 99th percentile"]


def test_what_cannot_be_read_is_told_and_the_rest_is_inspected() -> None:
    source = MadeUp(broken={1: "file-1.parquet: truncated (episode 1)"})
    found = survey(source)
    assert list(found.findings()) == ["file-1.parquet: truncated (episode 1)"]
    assert found.read == 2 and found.columns["action"].rows == 60 * 4


def test_missing_words_and_empty_episodes_are_found() -> None:
    source = MadeUp()
    source.episodes[0] = EpisodeInfo("a", 1, ())
    assert findings(source) == ["language: 1 episodes without a sentence", "lengths: 1 episodes have one frame or none"]


def test_some_episodes_of_many_are_spread_evenly() -> None:
    assert chosen_episodes(5, None) == [0, 1, 2, 3, 4]
    assert chosen_episodes(101, 3) == [0, 50, 100]
    assert chosen_episodes(2, 9) == [0, 1]
    assert survey(MadeUp(), most=2).read == 2


@pytest.mark.parametrize(("name", "expected"), [
    ("action", True), ("rel_actions", True), ("action/world_vector", True), ("action.gripper", True),
    ("observation.state", False), ("reactions", False),
])
def test_action_columns_are_known_by_name(name: str, expected: bool) -> None:
    assert is_action(name) is expected


def test_a_long_column_is_kept_as_an_even_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "KEPT_ROWS", 1000)
    tally = ColumnTally("action", ("x",))
    for episode in range(100):
        tally.add(np.linspace(0, 1, 100)[:, None] + episode, str(episode))
    sample = tally.sample()
    assert tally.rows == 10_000 and 300 < len(sample) <= 1000
    assert np.percentile(sample, (10, 50, 90)) == pytest.approx([10, 50, 90], abs=6)
    assert tally.low[0].value == 0 and tally.high[0].value == 100 and tally.high[0].episode == "99"


def test_pictures_show_the_data(tmp_path: Path) -> None:
    source, faults = MadeUp(), []
    sheet = cv2.imread(str(draw_contact_sheet(source, tmp_path / "sheet.png", Sheet(episodes=3, times=2), faults)))
    for shade in (60, 120, 180):
        assert (sheet == shade).all(-1).mean() > 0.02, f"no image of shade {shade}"
    assert faults == ["file-1.mp4: truncated"]
    found = survey(source)
    for path in (draw_histograms(found, tmp_path / "actions.png"), draw_lengths(found, tmp_path / "lengths.png")):
        assert cv2.imread(str(path)).std() > 10
    alike = replace(found, rates_hz=[20.0, float(np.nextafter(20.0, 21.0))])  # too near for bins of their own
    assert draw_lengths(alike, tmp_path / "alike.png").is_file()


def test_the_command_inspects_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "set")
    assert main([str(tmp_path / "set"), "--output", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert f"lerobot, 4 episodes, {sum(LENGTHS)} frames" in " ".join(text.split())
    assert "5 Hz published, 5 Hz measured" in text and "open_the_drawer" in text and "lift the red block" in text
    facts = json.loads((tmp_path / "out/inspect.json").read_text())
    assert facts["episodes"] == 4 and facts["frames"] == sum(LENGTHS) and facts["dropped_frames"] == 0
    assert facts["sentences"] == {"open the drawer": 2, "lift the red block": 2}
    assert facts["length"] == {"min": 3.0, "median": 4.5, "max": 9.0}
    assert set(facts["actions"]["action"]) == {"x", "y", "z", "rx", "ry", "rz", "gripper"}
    pictures = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {"actions", "lengths", "contact_sheet"}


def test_a_folder_that_is_no_data_set_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no data set of a known format" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "file").write_text("")
    write_dataset(tmp_path / "set")
    assert main([str(tmp_path / "set"), "--output", str(tmp_path / "file/out")]) == 1
    assert "name another place for the results" in " ".join(capsys.readouterr().out.split())

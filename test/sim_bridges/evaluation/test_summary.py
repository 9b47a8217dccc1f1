"""results.json and the reports: what stands in them, and that nothing of the machine does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from fake_player import made_up

from sim_bridges.evaluation.summary import results, write_report
from sim_bridges.evaluation.trials import CHAIN, Trial, TrialResult
from sim_bridges.results import EpisodeResult

RUN = {"sim": "tabletop", "policy": "expert <b>"}


def trials() -> list[TrialResult]:
    won, lost = made_up(Trial("lift", 1)), made_up(Trial("open", 2), success=False)
    return [won, lost, TrialResult(Trial(CHAIN, 5), won.episodes + lost.episodes, ("lift", "open", "press"))]


def slow(episode: EpisodeResult) -> EpisodeResult:
    return dataclasses.replace(episode, wall_s=9.0, control_rate_hz=1.0)


def test_results_hold_no_time() -> None:
    first = results(RUN, trials())
    slower = [dataclasses.replace(trial, episodes=tuple(map(slow, trial.episodes))) for trial in trials()]
    assert results(RUN, slower) == first
    assert json.loads(json.dumps(first)) == first
    assert first["chains"]["average_length"] == 1.0
    assert [row["successes"] for row in first["chains"]["in_a_row"]] == [1, 0, 0]
    assert first["rows"][0]["commands_sha256"] != first["rows"][1]["commands_sha256"]


def test_reports_show_tables_failures_and_films(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "open_1.mp4").touch()
    (tmp_path / "curve.png").write_bytes(b"picture")
    write_report(tmp_path, results(RUN, trials()))
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert "1.00 on average over 1 chains" in text and "| lift | 2/2 | 100.0 %" in text
    assert "Failures (2)" in text and "| open | 2 | do open | time_limit |" in text
    assert "expert &lt;b&gt;" in page and "failures/open_1.mp4" in page and "data:image/png;base64,cGljdHVyZQ==" in page
    assert json.loads((tmp_path / "results.json").read_text())["episodes"] == 4


def test_settings_and_recordings_have_their_tables(tmp_path: Path) -> None:
    played = [("lift", "simple", True), ("lift", "unseen_object", False), ("open", "simple", False)]
    found = results(RUN, [
        TrialResult(Trial(f"{task}/{setting}", 0), (dataclasses.replace(
            made_up(Trial(task, 0), success).episodes[0], setting=setting, recording=f"bags/{number}"),))
        for number, (task, setting, success) in enumerate(played)
    ])  # fmt: skip
    assert [(row["setting"], row["successes"], row["episodes"]) for row in found["settings"]] == [
        ("simple", 1, 2), ("unseen_object", 0, 1)
    ]  # fmt: skip
    assert found["rows"][1]["setting"] == "unseen_object" and found["rows"][1]["recording"] == "bags/1"
    write_report(tmp_path, found)
    text = (tmp_path / "report.md").read_text()
    for line in (
        "| simple | 1/2 | 50.0 % | 9 to 91 % | 3 |",
        "| lift | 1/1 | 0/1 |",
        "| open | 0/1 | - |",
        "| lift, unseen_object | 0 | do lift | time_limit |  |",
        "| open, simple | 0 | failure | bags/2 |",
    ):
        assert line in text

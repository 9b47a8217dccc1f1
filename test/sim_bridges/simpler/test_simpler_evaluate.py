"""SIMPLER's sets through the evaluate command, on doubles: plan, averages, resuming, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sim_bridges import registry
from sim_bridges.evaluate import evaluate, main, parse_arguments
from vla_policy.errors import ConfigError

DRAWERS = "google_robot_close_drawer"


@pytest.fixture(autouse=True)
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(registry.SIMS["simpler"], sim="simpler_double:double_sim")
    monkeypatch.setitem(registry.SIMS, "simpler", entry)


def run(*arguments: str) -> list:
    return evaluate(parse_arguments(["--sim", "simpler", "--policy", "random", *arguments]))


def test_a_set_is_played_and_averaged_as_published(tmp_path: Path) -> None:
    output = tmp_path / "out"
    episodes = run("--benchmark", "visual_matching", "--tasks", DRAWERS, "--per-task", "1", "--output", str(output))
    assert len(episodes) == 3 * 4 and {episode.steps for episode in episodes} <= {113, 116}  # chunks of four
    found = json.loads((output / "results.json").read_text())
    assert found["run"]["benchmark"] == "visual_matching" and found["run"]["robot"] == "simpler_google"
    rates = [row["success_rate"] for row in found["tasks"]]
    averages = {row["name"]: row for row in found["averages"]}
    assert averages[DRAWERS] == {"name": DRAWERS, "success_rate": pytest.approx(np.mean(rates)), "of": 12}
    report = (output / "report.md").read_text()
    assert "## Averages of visual_matching" in report and f"| {DRAWERS} |" in report
    assert {path.name for path in (output / "commands" / "google_robot_close_top_drawer" / "visual_matching").iterdir()
            } == {"original_colours", "tabletop_colours_1", "tabletop_colours_2", "cabinet_colours_1"}


def test_pictures_drawn_otherwise_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--tasks", "widowx_stack_cube", "--episodes", "1", "--time-limit", "0.8", "--output", str(tmp_path))
    run(*arguments)
    monkeypatch.setenv("SIMPLER_SHADER", "ibl")
    with pytest.raises(ConfigError, match='SIMPLER_SHADER: there null, now "ibl"'):
        run(*arguments)


def test_a_run_that_was_cut_off_goes_on_to_the_same_results(tmp_path: Path) -> None:
    arguments = ("--benchmark", "twins", "--tasks", "widowx_stack_cube,widowx_carrot_on_plate", "--per-task", "2")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(*arguments, "--output", str(whole))
    run(*arguments, "--output", str(cut))
    lines = (cut / "trials.jsonl").read_text().splitlines(keepends=True)
    (cut / "trials.jsonl").write_text("".join(lines[:2]) + lines[2][:40])
    assert len(run(*arguments, "--output", str(cut))) == 4
    assert (cut / "results.json").read_text() == (whole / "results.json").read_text()


def test_single_tasks_of_any_set_and_their_own_time_limit() -> None:
    first, second = run("--tasks", "widowx_stack_cube/twins", "--episodes", "2")
    assert (first.task, first.seed, second.seed) == ("widowx_stack_cube/twins", 0, 1)
    assert {first.steps, second.steps} == {60}
    (short,) = run("--tasks", "widowx_stack_cube", "--episodes", "1", "--time-limit", "0.8")
    assert short.steps == 4


@pytest.mark.parametrize(("arguments", "words"), [
    (("--benchmark", "visual_matching"), "got tasks 'all', .*robot simpler_google or simpler_widowx"),
    (("--benchmark", "visual", "--robot", "simpler_widowx"), "did you mean 'visual_matching'"),
    (("--benchmark", "twins", "--robot", "simpler_google"), "got robot google, expected widowx"),
    (("--tasks", "widowx_stack_cub"), "did you mean 'widowx_stack_cube'"),
    (("--tasks", "widowx_stack_cube/tins"), "did you mean 'twins'"),
    (("--tasks", "widowx_stack_cube", "--robot", "simpler_google"), "--tasks: got 'widowx_stack_cube'"),
    (("--tasks", "widowx_stack_cube", "--robot", "calvin"), "expected those of one of SIMPLER's robots")])
def test_the_command_refuses_in_one_line(
        monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate", "--sim", "simpler", "--policy", "random", *arguments])
    with pytest.raises(SystemExit, match=f"^evaluate: .*{words}"):
        main()


def test_counts_of_other_plans_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for count in ("--episodes", "--chains"):
        with pytest.raises(SystemExit):
            parse_arguments(["--sim", "simpler", "--benchmark", "twins", count, "2"])
        assert "not of a --benchmark" in capsys.readouterr().err

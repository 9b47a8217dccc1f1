"""The evaluate command: its plan, what it refuses, what it writes, and that more workers change nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import write_bundle

from sim_bridges.evaluate import evaluate, main, parse_arguments
from sim_bridges.evaluation.controls import swapped
from sim_bridges.evaluation.trials import episode_trials
from sim_bridges.registry import UNSEEN_SEED
from sim_bridges.tabletop.scene import BLOCKS
from sim_bridges.tabletop.tasks import TASKS
from vla_policy.errors import ConfigError

SENTENCES = sorted(
    {
        phrase.format(colour=colour, other=other)
        for task in TASKS.values()
        for phrase in task.phrases
        for colour in BLOCKS
        for other in BLOCKS
    }
)
KNOWN = ("lift", "open", "press")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("evaluate") / "bundle", "tabletop", SENTENCES)


# ---- the plan ---------------------------------------------------------------------------------------------------


def test_episodes_go_round_the_tasks_and_then_to_the_next_seed() -> None:
    trials = episode_trials(KNOWN, "all", episodes=5, per_task=None, seed=7)
    assert [trial.name for trial in trials] == ["lift/7", "open/7", "press/7", "lift/8", "open/8"]


def test_as_many_of_each_of_the_chosen_tasks() -> None:
    trials = episode_trials(KNOWN, "press, lift", episodes=10, per_task=2, seed=0)
    assert [trial.name for trial in trials] == ["press/0", "lift/0", "press/1", "lift/1"]


def test_an_unknown_task_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="--tasks: got 'pres'; did you mean 'press'"):
        episode_trials(KNOWN, "lift,pres", 1, None, 0)


def test_extra_tasks_are_no_part_of_all() -> None:
    assert "bring/0" not in [trial.name for trial in episode_trials(KNOWN, "all", 9, None, 0, ("bring",))]
    assert [trial.name for trial in episode_trials(KNOWN, "bring", None, 2, 0, ("bring",))] == ["bring/0", "bring/1"]


# ---- the command line -------------------------------------------------------------------------------------------


def test_defaults_play_unseen_seeds_in_process() -> None:
    options = parse_arguments([])
    assert (options.over, options.seed, options.episodes, options.per_task) == ("process", UNSEEN_SEED, None, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--episodes", "0"], "expected at least 1"),
        (["--seed", "-1"], "expected 0 or more"),
        (["--time-limit", "0"], "expected seconds above 0"),
        (["--episodes", "2", "--per-task", "2"], "not allowed with"),
        (["--sim", "nonsense"], "nonsense"),
        (["--video", "--over", "ros"], "--output DIR"),
        (["--video", "--output", "x"], "--over ros"),
        (["--films"], "--output DIR"),
        (["--over", "ros", "--control", "grey"], "--control"),
        (["--chains", "2", "--per-task", "2"], "not allowed with"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse_arguments(arguments)
    assert left.value.code == 2
    assert words in capsys.readouterr().err


def test_the_command_ends_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate", "--policy", "tabeltop"])
    with pytest.raises(SystemExit, match="^evaluate: got 'tabeltop', expected a path or a name in policies"):
        main()


@pytest.mark.parametrize("place", [("--output", "file"), ("--json", "file/summary.json")])
def test_results_that_cannot_be_written_are_refused_before_the_first_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[str, str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["evaluate", place[0], str(tmp_path / place[1])])
    with pytest.raises(SystemExit, match="^evaluate: .*file: File exists; expected a folder for the results"):
        main()


# ---- playing ----------------------------------------------------------------------------------------------------


def options_for(bundle: Path, *more: str) -> list[str]:
    return [
        "--policy",
        str(bundle),
        "--tasks",
        "press_button,lift_red_block",
        "--episodes",
        "3",
        "--seed",
        "4",
        "--time-limit",
        "0.8",
        *more,
    ]


def test_two_workers_play_what_one_plays_and_all_is_written(bundle: Path, tmp_path: Path) -> None:
    extra = tmp_path / "new" / "summary.json"
    alone = evaluate(parse_arguments(options_for(bundle, "--output", str(tmp_path / "out"), "--json", str(extra))))
    together = evaluate(parse_arguments(options_for(bundle, "--workers", "2")))
    assert [(r.task, r.seed) for r in alone] == [("press_button", 4), ("lift_red_block", 4), ("press_button", 5)]
    for one, other in zip(alone, together, strict=True):
        assert (one.task, one.seed, one.reason) == (other.task, other.seed, other.reason)
        assert np.array_equal(one.commands, other.commands) and one.commands.any()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("run.json", "trials.jsonl", "commands"),
        *("results.json", "report.md", "report.html", "summary.json", "commands.png", "latencies.png"),
    }
    summary = json.loads(extra.read_text())
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["steps"] for row in summary["rows"]] == [result.steps for result in alone]
    with np.load(tmp_path / "out" / "commands" / "lift_red_block" / "4.npz") as commands:
        assert np.array_equal(commands["0.commands"], alone[1].commands)


def test_an_evaluation_is_gone_on_with(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ("--output", str(tmp_path / "out"), "--films")
    whole = evaluate(parse_arguments(options_for(bundle, *output)))
    lines = (tmp_path / "out" / "trials.jsonl").read_text().splitlines(keepends=True)
    before = (tmp_path / "out" / "results.json").read_bytes()
    (tmp_path / "out" / "trials.jsonl").write_text(lines[0] + lines[2][:30])  # as kill -9 leaves it
    capsys.readouterr()
    again = evaluate(parse_arguments(options_for(bundle, *output)))
    assert "1 of 3 trials are there already" in capsys.readouterr().out
    assert [r.commands.tobytes() for r in again] == [r.commands.tobytes() for r in whole]
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    failed = [f"{r.task}_{r.seed}.mp4" for r in whole if not r.success]
    assert sorted(path.name for path in (tmp_path / "out" / "failures").iterdir()) == sorted(failed)


def test_chains_are_counted_in_a_row(tmp_path: Path) -> None:
    options = ["--policy", "expert", "--chains", "1", "--seed", "3", "--output", str(tmp_path)]
    episodes = evaluate(parse_arguments(options))
    assert len(episodes) == 5 and all(episode.success for episode in episodes)
    assert json.loads((tmp_path / "results.json").read_text())["chains"]["average_length"] == 5.0


def test_chains_are_played_in_processes_and_reported(bundle: Path, tmp_path: Path) -> None:
    arguments = ["--policy", str(bundle), "--chains", "3", "--seed", "4", "--time-limit", "0.5"]
    alone = evaluate(parse_arguments([*arguments, "--output", str(tmp_path)]))
    together = evaluate(parse_arguments([*arguments, "--workers", "2"]))
    assert [(r.task, r.seed, r.reason) for r in alone] == [(r.task, r.seed, r.reason) for r in together]
    assert [r.seed for r in alone] == [4, 5, 6]  # an untrained policy fails at the first instruction
    chains = json.loads((tmp_path / "summary.json").read_text())["chains"]
    assert (chains["chains"], chains["length"], chains["average_length"]) == (3, 5, 0.0)
    assert [len(row["steps"]) for row in chains["rows"]] == [5, 5, 5]
    assert (tmp_path / "chains.png").stat().st_size > 0


def test_the_controls_change_what_the_policy_gets(bundle: Path) -> None:
    plain, grey, swapped = (
        evaluate(parse_arguments([*options_for(bundle), *control]))
        for control in ((), ("--control", "grey"), ("--control", "swapped"))
    )
    assert not np.array_equal(plain[1].commands, grey[1].commands)
    assert not np.array_equal(plain[1].commands, swapped[1].commands)  # lift_red_block
    assert np.array_equal(plain[0].commands, swapped[0].commands)  # press_button has no word to swap


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("put the red block on the blue block", "put the green block on the yellow block"),
        ("turn on the light", "turn off the light"),
        ("turn the lamp off", "turn the lamp on"),
        ("push the yellow block to the left", "push the red block to the right"),
        ("drag the red block to the white pad", "drag the green block to the black pad"),
        ("pull out the drawer", "pull shut the drawer"),
        ("press the button", "press the button"),
    ],
)
def test_swapped_words_ask_for_something_else(said: str, heard: str) -> None:
    assert swapped(said) == heard


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bundle_that_cannot_be_used_ends_in_one_line(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "tokenizer.json").unlink()
    monkeypatch.setattr("sys.argv", ["evaluate", *options_for(broken, "--workers", workers)])
    with pytest.raises(SystemExit, match=r"^evaluate: .*broken: missing tokenizer\.json"):
        main()

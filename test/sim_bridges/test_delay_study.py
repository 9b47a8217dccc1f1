"""Modes and delays in, a table and a picture out; and what the evaluation says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim_bridges.delay_study import jerk_m_s3, main, short_name
from sim_bridges.evaluate import evaluate, parse_arguments
from sim_bridges.results import EpisodeResult
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError
from vla_policy.resources import find_contract

CONTRACT = load_contract(find_contract("tabletop"))


def episode(velocity: np.ndarray) -> EpisodeResult:
    commands = np.zeros((len(velocity), 7))
    commands[:, 0] = velocity
    return EpisodeResult("t", 0, "t", True, "SUCCEEDED", "", len(velocity), 1.0, 20.0, commands, commands)


def test_jerk_is_the_second_derivative_of_the_velocity() -> None:
    times_s = np.arange(20) * 0.05
    assert jerk_m_s3(episode(1.5 * times_s**2), CONTRACT) == pytest.approx(3.0)
    assert jerk_m_s3(episode(0.3 * times_s), CONTRACT) == pytest.approx(0.0, abs=1e-9)
    assert jerk_m_s3(episode(times_s[:2]), CONTRACT) is None
    other = load_contract(find_contract("ur5e"))
    if other.action.kind != CONTRACT.action.kind:
        with pytest.raises(ConfigError, match="expected one of tool velocities"):
            jerk_m_s3(replace(episode(times_s)), other)


def test_a_study_of_the_shipped_policy(tmp_path: Path) -> None:
    arguments = ["--tasks", "press_button", "--per-task", "1", "--delays", "0", "0.4", "--executions", "async", "rtc",
                 "--time-limit", "2", "--output", str(tmp_path)]
    assert main(arguments) == 0
    cells = json.loads((tmp_path / "study.json").read_text())
    assert [(cell["execution"], cell["delay_s"], cell["stopped"]) for cell in cells] == [
        ("async", 0.0, 0), ("async", 0.4, 1)]  # chunks of 0.4 s are over when they arrive; the lstm head knows no rtc
    assert (tmp_path / "study.png").stat().st_size > 10_000
    assert "| tabletop | 400 | async | 0/1 |" in (tmp_path / "study.md").read_text()
    run = json.loads((tmp_path / "tabletop" / "async_400ms" / "run.json").read_text())
    assert "0.4" in json.dumps(run)


def test_a_run_is_named_by_its_folder() -> None:
    assert [short_name(name) for name in ("tabletop", "outputs/train/flow/bundle", "a/b/best/")] == [
        "tabletop", "flow", "b"]


def test_a_policy_without_the_mode_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="got rtc, but action head 'lstm'"):
        evaluate(parse_arguments(["--episodes", "1", "--execution", "rtc"]))
    with pytest.raises(ConfigError, match="got rtc, but this policy gives its chunks in one piece"):
        evaluate(parse_arguments(["--episodes", "1", "--policy", "random", "--execution", "rtc"]))


@pytest.mark.parametrize("arguments", [["--execution", "fast"], ["--inference-delay", "-1"],
                                       ["--over", "ros", "--inference-delay", "0.1"]])
def test_what_makes_no_sense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    assert capsys.readouterr().err

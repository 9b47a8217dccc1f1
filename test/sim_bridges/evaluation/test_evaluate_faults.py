"""What can go wrong in an evaluation: one clear line each, and what was finished is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_rig import serving

from sim_bridges.evaluate import main
from sim_bridges.evaluation import agents
from vla_policy.chance import RandomPolicy
from vla_policy.contract import load_contract
from vla_policy.remote.convention import Convention
from vla_policy.remote.server import ServerOptions
from vla_policy.remote.session import Session
from vla_policy.resources import find_contract
from vla_policy.types import ActionChunk, Observation

CONTRACT = load_contract(find_contract("tabletop"))
SHORT = ("--tasks", "press_button", "--episodes", "2", "--time-limit", "0.4")


class Stalling(RandomPolicy):
    """Answers in its first episode; from the second on only while `answering` is set."""

    answering = threading.Event()
    episodes = 0

    def reset(self, instruction: str) -> None:
        super().reset(instruction)
        type(self).episodes += bool(instruction)

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        if self.episodes > 1:
            assert self.answering.wait(20.0)
        return super().step(observation, run_id)


@pytest.fixture
def address() -> Iterator[str]:
    with serving(lambda: Session(Stalling(CONTRACT), CONTRACT, Convention(), False), ServerOptions(port=0)) as address:
        yield address
        Stalling.answering.set()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the command says at its end; empty where all was played."""
    monkeypatch.setattr("sys.argv", ["evaluate", *arguments])
    try:
        main()
    except SystemExit as left:
        return str(left.code)
    return ""


def test_a_server_that_stops_answering_costs_nothing_that_was_finished(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agents, "ANSWER_S", 0.5)
    arguments = ("--policy", address, *SHORT, "--output", str(tmp_path))
    said = run(monkeypatch, *arguments)
    assert said.startswith(f"evaluate: {address}: no answer within 0.5 s") and "\n" not in said
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 1
    Stalling.answering.set()
    assert run(monkeypatch, *arguments) == ""
    assert "1 of 2 trials are there already" in capsys.readouterr().out
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 2


def test_another_run_s_results_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--policy", "random", *SHORT, "--output", str(tmp_path)) == ""
    before = (tmp_path / "results.json").read_bytes()
    said = run(monkeypatch, "--policy", "expert", *SHORT, "--output", str(tmp_path))
    assert 'results of another run (policy: there "random", now "expert"); choose another --output' in said
    assert (tmp_path / "results.json").read_bytes() == before


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_calvin_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    monkeypatch.setenv("CALVIN_ROOT", str(tmp_path / "nowhere"))
    said = run(monkeypatch, "--sim", "calvin", "--policy", "random", "--chains", "2", "--workers", workers)
    assert said.startswith("evaluate: CALVIN_ROOT=") and "got no such folder" in said and "git clone" in said


def test_a_policy_of_another_robot_is_refused_with_both_values(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(monkeypatch, "--sim", "calvin", "--policy", "tabletop", "--chains", "1")
    assert said.startswith("evaluate: ") and "\n" not in said
    assert "tabletop" in said and "base_frame" in said


def test_a_task_that_does_not_exist_gets_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(monkeypatch, "--sim", "calvin", "--policy", "random", "--tasks", "open_drawr")
    assert said.startswith("evaluate: --tasks: got 'open_drawr'; did you mean 'open_drawer'?")

"""The folder of a run: nothing finished is lost, nothing is counted twice, nothing is mixed with another run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_player import made_up

from sim_bridges.evaluation.store import ResultStore, in_order
from sim_bridges.evaluation.trials import CHAIN, Trial, TrialResult
from vla_policy.errors import ConfigError

RUN = {"sim": "tabletop", "policy": "expert", "first_seed": 3}
TRIALS = [Trial("lift", 3), Trial("open", 3), Trial("lift", 4)]


def test_what_was_added_comes_back_whole(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "run", RUN)
    for trial in reversed(TRIALS):
        store.add(made_up(trial))
    found = ResultStore(tmp_path / "run", RUN).load()
    assert [result.trial for result in in_order(TRIALS, found)] == TRIALS
    episode, original = found["lift/4"].episodes[0], made_up(Trial("lift", 4)).episodes[0]
    np.testing.assert_array_equal(episode.commands, original.commands)
    np.testing.assert_array_equal(episode.requested, original.requested)
    assert (episode.instruction, episode.success, episode.latencies_ms) == ("do lift", True, {"model": [1.0, 2.0]})


def test_chains_come_back_as_chains(tmp_path: Path) -> None:
    trial = Trial(CHAIN, 9)
    episodes = made_up(Trial("lift", 9)).episodes + made_up(Trial("stack", 9), success=False).episodes
    ResultStore(tmp_path, RUN).add(TrialResult(trial, episodes, ("lift", "stack red blue", "open")))
    chain = ResultStore(tmp_path, RUN).load()["chain/9"].chain
    assert (chain.solved, len(chain.chain.steps), chain.chain.steps[1].choice) == (1, 3, ("red", "blue"))


def test_a_line_that_was_being_written_when_the_power_went_is_played_again(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, RUN)
    store.add(made_up(TRIALS[0])), store.add(made_up(TRIALS[1]))
    lines = tmp_path / "trials.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])
    again = ResultStore(tmp_path, RUN)
    assert set(again.load()) == {"lift/3"}
    again.add(made_up(TRIALS[1]))
    assert set(again.load()) == {"lift/3", "open/3"}


def test_another_run_s_folder_is_refused_with_both_values(tmp_path: Path) -> None:
    ResultStore(tmp_path, RUN).add(made_up(TRIALS[0]))
    with pytest.raises(ConfigError, match='policy: there "expert", now "random".; choose another --output'):
        ResultStore(tmp_path, RUN | {"policy": "random"})
    (tmp_path / "run.json").unlink()
    with pytest.raises(ConfigError, match="trials of an unknown run"):
        ResultStore(tmp_path, RUN)


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="expected a folder for the results"):
        ResultStore(tmp_path / "file", RUN)

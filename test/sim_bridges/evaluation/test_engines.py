"""Worker processes and Ray give what one process gives; a worker that dies loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_player import FakeSpec

from sim_bridges.evaluation.engines import play_here, play_in_processes, play_on_ray
from sim_bridges.evaluation.player import PlayerSpec
from sim_bridges.evaluation.summary import results
from sim_bridges.evaluation.trials import Trial, TrialResult, chain_trials, episode_trials
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.resources import find_contract

TRIALS = [Trial("lift", seed) for seed in range(6)]
SPEC = PlayerSpec("tabletop", load_contract(find_contract("tabletop")), "expert", 0.6)
REAL = episode_trials(("lift_red_block", "press_button"), "all", 6, None, 40) + chain_trials(1, 7)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def sorted_results(found: Iterator[TrialResult]) -> dict:
    by_name = {result.trial.name: result for result in found}
    return results({}, [by_name[trial.name] for trial in REAL])


def test_a_worker_that_dies_loses_nothing(marks: Path) -> None:
    found = list(play_in_processes(FakeSpec(marks, "lift/2"), TRIALS, workers=2))
    assert sorted(result.trial.seed for result in found) == list(range(6))
    assert len(list(marks.iterdir())) == 1
    for one, other in zip(play_here(FakeSpec(marks), TRIALS), sorted(found, key=lambda r: r.trial.seed), strict=True):
        np.testing.assert_array_equal(one.episodes[0].commands, other.episodes[0].commands)


def test_a_trial_that_always_kills_is_named(marks: Path) -> None:
    with pytest.raises(VlaError, match="worker processes died 3 times over .*lift/2"):
        list(play_in_processes(FakeSpec(marks, "lift/2", times=99), TRIALS, workers=1))


def test_a_refusal_in_a_worker_is_the_caller_s(marks: Path) -> None:
    with pytest.raises(VlaError, match="lift/1 is refused"):
        list(play_in_processes(FakeSpec(marks, refused="lift/1"), TRIALS, workers=2))


def test_nothing_to_play_builds_nothing() -> None:
    assert list(play_here(None, [])) == []


def test_ray_gives_the_same_results_and_survives_a_killed_worker() -> None:
    pytest.importorskip("ray", reason="needs `pip install ray`")
    killed = threading.Event()

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed.is_set():
            for process in psutil.process_iter(["name", "cmdline"]):
                if "_RayWorker.play" in " ".join(process.info["cmdline"] or ()):
                    process.kill()
                    killed.set()
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    on_ray = sorted_results(play_on_ray(SPEC, REAL, "local", workers=2))
    thread.join(60)
    assert killed.is_set()
    assert on_ray == sorted_results(play_here(SPEC, REAL))


def test_no_cluster_at_an_address() -> None:
    pytest.importorskip("ray", reason="needs `pip install ray`")
    with pytest.raises(ConfigError, match="--ray 127.0.0.1:1: no Ray cluster answers there"):
        list(play_on_ray(SPEC, REAL, "127.0.0.1:1", workers=1))

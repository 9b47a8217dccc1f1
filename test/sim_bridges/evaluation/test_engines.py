"""Worker processes and Ray give what one process gives; a worker that dies loses nothing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_player import FakeSpec

from sim_bridges.evaluate import evaluate, parse_arguments
from sim_bridges.evaluation.engines import play_here, play_in_processes, play_on_ray
from sim_bridges.evaluation.player import PlayerSpec
from sim_bridges.evaluation.trials import Trial
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.resources import find_contract

TRIALS = [Trial("lift", seed) for seed in range(6)]
SPEC = PlayerSpec("tabletop", load_contract(find_contract("tabletop")), "expert", 0.6)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


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


def kill_one_ray_worker(killed: threading.Event, end_s: float) -> None:
    """Kill the first worker of this process's own Ray that plays a trial."""
    while time.monotonic() < end_s and not killed.is_set():
        for process in psutil.Process().children(recursive=True):
            try:
                if "_RayWorker.play" in " ".join(process.cmdline()):
                    process.kill()
                    killed.set()
                    return
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)


def test_two_ray_workers_write_the_results_of_one_process_though_one_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray; see requirements/test.txt")
    arguments = ["--policy", "expert", "--tasks", "lift_red_block,press_button", "--episodes", "6", "--seed", "40"]
    killed = threading.Event()
    thread = threading.Thread(target=kill_one_ray_worker, args=(killed, time.monotonic() + 120), daemon=True)
    thread.start()
    evaluate(parse_arguments([*arguments, "--ray", "local", "--workers", "2", "--output", str(tmp_path / "ray")]))
    thread.join(120)
    assert killed.is_set()
    evaluate(parse_arguments([*arguments, "--output", str(tmp_path / "one")]))
    one, ray = ((tmp_path / name / "results.json").read_bytes() for name in ("one", "ray"))
    assert one == ray and b'"episodes": 6' in one
    lines = (tmp_path / "ray" / "trials.jsonl").read_text().splitlines()
    assert len(lines) == 6  # what the killed worker played was played again, and counted once


def test_no_cluster_at_an_address() -> None:
    pytest.importorskip("ray", reason="needs Ray; see requirements/test.txt")
    with pytest.raises(ConfigError, match="--ray 127.0.0.1:1: no Ray cluster answers there"):
        list(play_on_ray(SPEC, TRIALS, "127.0.0.1:1", workers=1))

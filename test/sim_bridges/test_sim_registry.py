"""Simulators by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sim_bridges.evaluation.benchmarks import find_benchmark
from sim_bridges.registry import SIMS, make_sim
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError
from vla_policy.resources import find_contract, find_sim_contract

TASKS = {"simpler": "widowx_stack_cube"}  # of simulators whose contract depends on the task


@pytest.mark.parametrize("name", SIMS)
def test_every_simulator_can_be_built_from_the_contract_of_its_name(name: str) -> None:
    sim = make_sim(name, load_contract(find_sim_contract(name, TASKS.get(name, "all"))))
    assert sim.tasks
    assert sim.time_ns == 0
    sim.close()


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="sim: got 'tabeltop'; did you mean 'tabletop'"):
        make_sim("tabeltop", load_contract(find_contract("tabletop")))


@pytest.mark.parametrize(
    ("sim", "benchmark"), [(sim, name) for sim, entry in SIMS.items() for name in entry.benchmarks])
def test_every_benchmark_can_be_loaded(sim: str, benchmark: str) -> None:
    assert callable(find_benchmark(sim, benchmark).trials)


def test_a_simulator_is_imported_when_it_is_chosen() -> None:
    code = "import sys, sim_bridges.registry; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = set(done.stdout.split())
    assert "sim_bridges.registry" in modules and "mujoco" not in modules

"""CALVIN_ROOT in; steps per second of CPU time of the bare calvin_env and of the bridge, in turns in one run, out.

`CALVIN_ROOT=DIR python eval/calvin/bridge_speed.py [--rounds 5] [--steps 60]`. Both render both cameras at every step,
in one thread; CPU time, because what else the machine does would otherwise count for one or the other.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from rich.console import Console

from sim_bridges.calvin.sim import PERIOD_NS, CalvinSim
from sim_bridges.calvin.starts import benchmark_start
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_contract
from vla_policy.types import Command

TWIST = np.array([0.05, 0.05, -0.05, 0.0, 0.0, 0.1])


def main() -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description="What the bridge costs.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--steps", type=int, default=60, help="steps of a turn")
    options = parser.parse_args()
    sim = CalvinSim(load_contract(find_contract("calvin")))
    try:
        rates = [(_bare(sim, options.steps), _bridge(sim, options.steps)) for _ in range(options.rounds)]
    except VlaError as problem:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]calvin:[/red] {problem}")
        return 1
    finally:
        sim.close()
    bare, bridge = np.median(rates, axis=0)
    Console(highlight=False).print(
        f"bare calvin_env {bare:.1f} steps/s of CPU time, bridge {bridge:.1f}/s, ratio {bridge / bare:.2f} "
        f"(medians of {options.rounds} turns of {options.steps} steps)")
    return 0


def _bare(sim: CalvinSim, steps: int) -> float:
    """Steps per second of the genuine environment alone, which renders within its step."""
    table = sim.world.table
    sim.place(benchmark_start(sim.draw_chain(0).start))
    table.cameras = list(sim.cameras.values())
    try:
        start_s = time.process_time()
        for _ in range(steps):
            table.step(np.append(TWIST * 0.5, 1.0))
        return steps / (time.process_time() - start_s)
    finally:
        table.cameras = []


def _bridge(sim: CalvinSim, steps: int) -> float:
    """Steps per second through the bridge: command, oracle and an observation with images."""
    sim.begin_chain(sim.draw_chain(0))
    start_s = time.process_time()
    for _ in range(steps):
        sim.advance(Command(sim.time_ns, TWIST, 1.0), PERIOD_NS)
        sim.observe()
    return steps / (time.process_time() - start_s)


if __name__ == "__main__":
    sys.exit(main())

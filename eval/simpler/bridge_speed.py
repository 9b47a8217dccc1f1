"""SIMPLER_ROOT or ManiSkill3 in; steps per second of CPU time of the bare environment and of the bridge, in turns, out.

`SIMPLER_ROOT=DIR VENV/bin/python eval/simpler/bridge_speed.py [--task TASK[/SET]] [--rounds 5] [--steps 20]`. Both
render the policy's camera at every step; CPU time, because what else the machine does would otherwise count for one or
the other. The bare environment renders as its own `step` does: also a second, small camera that no policy sees.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console

from sim_bridges.simpler.sim import SimplerSim
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_sim_contract
from vla_policy.types import Command

STEP = np.array([0.002, 0.002, -0.002, 0.0, 0.0, 0.01])


def main() -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description="What the bridge costs.")
    parser.add_argument("--task", default="widowx_stack_cube", help="TASK, TASK/SET or TASK/SET/VARIANT")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn")
    options = parser.parse_args()
    sim = SimplerSim(load_contract(find_sim_contract("simpler", options.task)))
    try:
        rates = [(_bare(sim, options), _bridge(sim, options)) for _ in range(options.rounds)]
    except VlaError as problem:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]simpler:[/red] {problem}")
        return 1
    finally:
        sim.close()
    bare, bridge = np.median(rates, axis=0)
    Console(highlight=False, soft_wrap=True).print(
        f"{options.task}: bare environment {bare:.2f} steps/s of CPU time, bridge {bridge:.2f}/s, ratio "
        f"{bridge / bare:.2f} (medians of {options.rounds} turns of {options.steps} steps)")
    return 0


def _bare(sim: SimplerSim, options: argparse.Namespace) -> float:
    """Steps per second of the genuine environment alone, which renders within its step."""
    sim.reset(options.task, 0)
    env: Any = sim.world.env
    quiet, env._obs_mode = env._obs_mode, "image" if "/twins" not in options.task else "rgb+segmentation"
    if hasattr(env, "_setup_cameras"):
        env._setup_cameras()  # those that the bridge took out
    try:
        start_s = time.process_time()
        for _ in range(options.steps):
            env.step(np.append(STEP, 1.0).astype(np.float32))
        return options.steps / (time.process_time() - start_s)
    finally:
        env._obs_mode = quiet


def _bridge(sim: SimplerSim, options: argparse.Namespace) -> float:
    """Steps per second through the bridge: command, judge and an observation with an image."""
    sim.reset(options.task, 0)
    start_s = time.process_time()
    for _ in range(options.steps):
        sim.advance(Command(sim.time_ns, STEP * sim.robot.rate_hz, 1.0), sim.period_ns)
        sim.observe()
    return options.steps / (time.process_time() - start_s)


if __name__ == "__main__":
    sys.exit(main())

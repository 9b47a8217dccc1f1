"""SIMPLER_ROOT or ManiSkill3 in; versions, a step's time and a PNG of what the camera sees out. Exit code 0: it works.

`SIMPLER_ROOT=DIR VENV/bin/python eval/simpler/env_test.py [--task TASK[/SET]] [--output FILE.png]`, after
`scripts/setup_simplerenv.sh --venv VENV DIR`; a task `…/twins` needs ManiSkill3 instead. `--list`: which tasks, sets
and variants the checkout has the data for.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from sim_bridges.simpler.checkout import Checkout, find_checkout
from sim_bridges.simpler.protocol import TASKS, TWINS
from sim_bridges.simpler.sim import SimplerSim
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_sim_contract
from vla_policy.types import Command

PACKAGES = ("sapien", "numpy", "gymnasium", "mani-skill", "torch", "scipy", "transforms3d", "opencv-python-headless")
STEPS = 10
RISE_M = 0.01  # that a step asks for
MOVED_M = 0.02  # of the STEPS times RISE_M, at least; Google's arm trails far behind


def main() -> int:
    """Import, reset, step, render. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Does SIMPLER work here?")
    parser.add_argument("--task", default="widowx_stack_cube", help="scene to show: TASK, TASK/SET or TASK/SET/VARIANT")
    parser.add_argument("--output", type=Path, default=Path("simpler_env_test.png"), help="where the picture goes")
    parser.add_argument("--list", action="store_true", help="say what the checkout has the data for, and play nothing")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Python {sys.version.split()[0]}  " + "  ".join(f"{name} {_version(name)}" for name in PACKAGES))
    try:
        if options.list:
            return _list(console, find_checkout())
        instruction, image, times_ms, risen_m = _play(options.task)
    except VlaError as problem:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]simpler:[/red] {problem}", markup=True)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.output), image[..., ::-1])
    console.print(f'{options.task}: "{instruction}"; a step {times_ms[0]:.0f} ms, an image {times_ms[1]:.0f} ms; '
                  f"the tool rose by {risen_m * 1e3:.0f} of {STEPS * RISE_M * 1e3:.0f} mm")
    console.print(f"picture: {options.output}")
    if risen_m < MOVED_M or image.std() < 1.0:
        console.print("[red]the arm did not follow or the picture is empty[/red]")
        return 1
    return 0


def _list(console: Console, checkout: Checkout) -> int:
    """A line for each variant of the genuine sets. Returns 0 where all data is there."""
    lacking = 0
    for task in TASKS.values():
        for name, variants in task.sets.items():
            for variant in variants if name != TWINS else ():
                missing = checkout.missing(variant)
                lacking += bool(missing)
                console.print(f"{task.name}/{name}/{variant.name}: "
                              + (f"[red]no[/red] {', '.join(map(str, missing))}" if missing else "whole"))
    console.print(f"{lacking} variants lack data" if lacking else "all data is there")
    return int(bool(lacking))


def _play(task: str) -> tuple[str, NDArray[np.uint8], tuple[float, float], float]:
    """Instruction, last image, mean times of a step and of an image [ms], and how far the tool rose [m]."""
    sim = SimplerSim(load_contract(find_sim_contract("simpler", task)))
    try:
        instruction = sim.reset(task, 0).instruction
        before_m = sim.observe().pose.position[2]
        twist = np.array([0.0, 0.0, RISE_M, 0.0, 0.0, 0.0]) * sim.robot.rate_hz
        spent_s = np.zeros(2)
        for _ in range(STEPS):
            start_s = time.perf_counter()
            sim.advance(Command(sim.time_ns, twist, 1.0), sim.period_ns)
            stepped_s = time.perf_counter()
            seen = sim.observe()
            spent_s += stepped_s - start_s, time.perf_counter() - stepped_s
        step_ms, image_ms = spent_s / STEPS * 1e3
        return instruction, seen.images[sim.robot.camera], (step_ms, image_ms), float(
            seen.pose.position[2] - before_m)
    finally:
        sim.close()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    sys.exit(main())

"""CALVIN_ROOT in; versions, one step's time and a PNG of what both cameras see out. Exit code 0: CALVIN works here.

`CALVIN_ROOT=DIR python eval/calvin/env_test.py [--output FILE.png]`, after `scripts/setup_calvin.sh DIR`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from sim_bridges.calvin.checkout import chosen_scene, find_checkout
from sim_bridges.calvin.sim import PERIOD_NS, CalvinSim
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_contract
from vla_policy.types import Command

PACKAGES = ("pybullet", "numpy", "hydra-core", "omegaconf", "gym", "numpy-quaternion", "scipy",
            "opencv-python-headless")
STEPS = 10
MOVED_M = 0.02  # of the STEPS times 10 mm that the arm is told to go up, at least


def main() -> int:
    """Import, reset, step, render. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Does CALVIN work here?")
    parser.add_argument("--task", default="lift_red_block_table", help="scene to show")
    parser.add_argument("--output", type=Path, default=Path("calvin_env_test.png"), help="where the picture goes")
    options = parser.parse_args()
    console = Console(highlight=False)
    try:
        checkout, scene = find_checkout(), chosen_scene()
        console.print(f"Python {sys.version.split()[0]}  " + "  ".join(f"{name} {_version(name)}" for name in PACKAGES))
        console.print(f"CALVIN at {checkout.root}, scene {scene}")
        images, step_ms, risen_m = _play(options.task)
    except VlaError as problem:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]calvin:[/red] {problem}")
        return 1
    _write(options.output, images)
    console.print(f"{STEPS} steps of {step_ms:.0f} ms with both images; the tool rose by {risen_m * 1e3:.0f} mm")
    console.print(f"picture: {options.output}")
    if risen_m < MOVED_M or any(image.std() < 1.0 for image in images.values()):
        console.print("[red]the arm did not follow or a picture is empty[/red]")
        return 1
    return 0


def _play(task: str) -> tuple[Mapping[str, NDArray[np.uint8]], float, float]:
    """The last images, the time of a step with rendering [ms], and how far the tool rose [m]."""
    sim = CalvinSim(load_contract(find_contract("calvin")))
    try:
        sim.reset(task, 0)
        before_m, start_s = sim.observe().pose.position[2], time.perf_counter()
        for _ in range(STEPS):
            sim.advance(Command(sim.time_ns, np.array([0.0, 0.0, 0.3, 0.0, 0.0, 0.0]), 1.0), PERIOD_NS)
            seen = sim.observe()
        step_ms = (time.perf_counter() - start_s) / STEPS * 1e3
        return seen.images, step_ms, float(seen.pose.position[2] - before_m)
    finally:
        sim.close()


def _write(path: Path, images: Mapping[str, NDArray[np.uint8]]) -> None:
    height = max(len(image) for image in images.values())
    row = [cv2.resize(image, (height, height), interpolation=cv2.INTER_NEAREST) for image in images.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.hstack(row)[..., ::-1])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    sys.exit(main())

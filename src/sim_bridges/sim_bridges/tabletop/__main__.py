"""A task and a seed in, pictures and a video of the expert out.

Use: `python -m sim_bridges.tabletop --task push_left --seed 3 --out outputs/tabletop`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from sim_bridges.media import EpisodeFilm, VideoWriter
from sim_bridges.tabletop.demonstration import demonstrate
from sim_bridges.tabletop.sim import CAMERAS, TabletopSim
from sim_bridges.tabletop.tasks import TASKS
from vla_policy.action.safety import Decision
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_contract
from vla_policy.types import Observation


def film(task: str, seed: int, folder: Path, image_size: int, console: Console) -> None:
    """Write first and last pictures, a contact sheet and a video. Raises: VlaError for an unknown task."""
    contract = load_contract(find_contract("tabletop"))
    sim = TabletopSim(image_size)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{task}_{seed}"
    seen: list[Observation] = []

    def watch(observation: Observation, _: Decision) -> None:
        """Keep every observation of the episode, in order; the decision is not drawn."""
        seen.append(observation)

    result = demonstrate(sim, contract, task, seed, watch=watch)
    seen.append(sim.observe())
    with VideoWriter(folder / f"{name}.mp4", contract.control_rate_hz) as writer:
        reel = EpisodeFilm(writer, CAMERAS)
        for observation in seen:
            for camera in CAMERAS:
                reel.add(observation.stamp_ns, camera, observation.images[camera])
        reel.develop(result)
    for camera in CAMERAS:
        _save(folder / f"{name}_{camera}.png", seen[0].images[camera])
    chosen = [seen[round(i)] for i in np.linspace(0, len(seen) - 1, 6)]
    strips = [np.hstack([observation.images[camera] for observation in chosen]) for camera in CAMERAS]
    _save(folder / f"{name}_sheet.png", np.vstack(strips))
    sim.close()
    outcome = "success" if result.success else result.reason
    console.print(f"'{result.instruction}': {outcome} after {result.steps} steps; see {folder}/{name}*")


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m sim_bridges.tabletop", description=__doc__)
    parser.add_argument("--task", default="lift_red_block", help=", ".join(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/tabletop"))
    parser.add_argument("--size", type=int, default=224, help="width and height of the pictures [pixels]")
    options = parser.parse_args()
    try:
        film(options.task, options.seed, options.out, options.size, Console())
    except VlaError as problem:
        sys.exit(f"tabletop: {problem}")


if __name__ == "__main__":
    main()

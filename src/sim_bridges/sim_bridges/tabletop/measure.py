"""A number of seeds in, the experts' success as a Markdown table out.

Use: `python -m sim_bridges.tabletop.measure --seeds 100`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

from sim_bridges.results import EpisodeResult, wilson_interval
from sim_bridges.tabletop.demonstration import demonstrate
from sim_bridges.tabletop.sim import TabletopSim
from sim_bridges.tabletop.tasks import TASKS, find_task
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_contract

UNSEEN_PX = 16  # the experts look at no picture


def measure(tasks: Sequence[str], seeds: range, console: Console) -> dict[str, list[EpisodeResult]]:
    """Play every task with every seed. Raises: VlaError for an unknown task."""
    for task in tasks:
        find_task(task)
    contract = load_contract(find_contract("tabletop"))
    sim = TabletopSim(UNSEEN_PX)
    results = {}
    for task in tasks:
        watched = track(seeds, task, console=console, transient=True)
        results[task] = [demonstrate(sim, contract, task, seed) for seed in watched]
    sim.close()
    return results


def table(results: dict[str, list[EpisodeResult]]) -> str:
    """Success, its 95 % interval, and control periods (50 ms) to success, as Markdown."""
    lines = ["| task | success | 95 % interval | steps, mean | steps, most | failed seeds |",
             "|---|---|---|---|---|---|"]
    for task, episodes in results.items():
        won = [episode for episode in episodes if episode.success]
        low, high = wilson_interval(len(won), len(episodes))
        steps = [episode.steps for episode in won] or [0]
        failed = ", ".join(str(episode.seed) for episode in episodes if not episode.success) or "none"
        lines.append(f"| {task} | {len(won)}/{len(episodes)} | {low:.2f} to {high:.2f} "
                     f"| {np.mean(steps):.1f} | {max(steps)} | {failed} |")
    return "\n".join(lines)


def main() -> None:
    """The command; exit code 1 when an expert fails in more than 5 % of its episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="episodes of each task")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="TASK")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    try:
        results = measure(options.tasks, seeds, Console(stderr=True))
    except VlaError as problem:
        sys.exit(f"measure: {problem}")
    sys.stdout.write(table(results) + "\n")
    sys.exit(any(sum(e.success for e in episodes) < 0.95 * len(episodes) for episodes in results.values()))


if __name__ == "__main__":
    main()

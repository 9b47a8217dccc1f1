"""A number of seeds or of chains in, the experts' success as a Markdown table out.

Use: `python -m sim_bridges.tabletop.measure --seeds 100`, `python -m sim_bridges.tabletop.measure --chains 100`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

from sim_bridges.chains import ChainResult, summarise_chains
from sim_bridges.results import EpisodeResult, wilson_interval
from sim_bridges.tabletop.demonstration import demonstrate, demonstrate_chain
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


def measure_chains(seeds: range, console: Console) -> list[ChainResult]:
    """Play the chain of every seed."""
    contract = load_contract(find_contract("tabletop"))
    sim = TabletopSim(UNSEEN_PX)
    watched = track(seeds, "chains", console=console, transient=True)
    results = [demonstrate_chain(sim, contract, seed) for seed in watched]
    sim.close()
    return results


def by_task(results: Sequence[ChainResult]) -> dict[str, list[EpisodeResult]]:
    """The episodes of chains, sorted by their tasks in the order of TASKS."""
    episodes = [episode for result in results for episode in result.episodes]
    return {task: found for task in TASKS if (found := [episode for episode in episodes if episode.task == task])}


def chain_line(results: Sequence[ChainResult]) -> str:
    """Success of 1 to 5 in a row and the average, in a sentence."""
    summary = summarise_chains(results)
    shares = ", ".join(f"{100 * row['success_rate']:.1f}" for row in summary["in_a_row"])
    return (f"{summary['chains']} chains: {summary['average_length']:.2f} instructions in a row on average; "
            f"1 to {summary['length']} in a row: {shares} %")


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
    parser.add_argument("--chains", type=int, help="chains of five tasks, instead of single ones")
    options = parser.parse_args()
    first, console = options.first_seed, Console(stderr=True)
    try:
        if options.chains:
            chains = measure_chains(range(first, first + options.chains), console)
            results = by_task(chains)
            sys.stdout.write(chain_line(chains) + "\n")
        else:
            results = measure(options.tasks, range(first, first + options.seeds), console)
    except VlaError as problem:
        sys.exit(f"measure: {problem}")
    sys.stdout.write(table(results) + "\n")
    sys.exit(any(sum(e.success for e in episodes) < 0.95 * len(episodes) for episodes in results.values()))


if __name__ == "__main__":
    main()

"""Policies, delays and execution modes in; a table and a plot of success and smoothness for each out.

    python -m sim_bridges.delay_study --policy tabletop outputs/train/flow/bundle --output outputs/delay

Each cell is an evaluation of its own (`sim_bridges.evaluate --execution … --inference-delay …`) on the same scenes, and
is gone on with where it stopped. The delay is simulated: the result does not depend on the machine's speed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console

from sim_bridges.evaluate import evaluate, parse_arguments
from sim_bridges.results import EpisodeResult, wilson_interval
from vla_policy.contract import ActionKind, RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.execution import Execution
from vla_policy.resources import find_contract
from vla_policy.types import NS_PER_S

COLOURS = {"blocking": "#9aa5b1", "async": "#2563eb", "ensemble": "#0f9d74", "rtc": "#e4572e"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of a policy in one mode at one delay.

    seconds: of sim time, median of the successes. jerk_m_s3: root mean square over an episode of the commanded tool
    velocity's second derivative, median over the episodes. stopped: episodes that the guard ended, as where a chunk was
    used up.
    """

    policy: str
    execution: str
    delay_s: float
    episodes: int
    successes: int
    seconds: float | None
    jerk_m_s3: float | None
    stopped: int


def measure(policy: str, execution: Execution, delay_s: float, options: argparse.Namespace) -> Cell | None:
    """Play a cell's episodes, or read them where they were played; None where the policy has no such mode."""
    folder = options.output / short_name(policy) / f"{execution}_{round(1000 * delay_s)}ms"
    arguments = ["--policy", policy, "--sim", options.sim, "--per-task", str(options.per_task), "--execution",
                 str(execution), "--inference-delay", str(delay_s), "--output", str(folder), "--tasks", options.tasks]
    arguments += ["--workers", str(options.workers), "--time-limit", str(options.time_limit)]
    try:
        episodes = evaluate(parse_arguments(arguments))
    except ConfigError as problem:
        if execution is not Execution.RTC or "rtc" not in str(problem):
            raise
        return None
    contract = load_contract(find_contract(options.sim))
    successes = [episode for episode in episodes if episode.success]
    jerks = [jerk for episode in episodes if (jerk := jerk_m_s3(episode, contract)) is not None]
    return Cell(
        policy, str(execution), delay_s, len(episodes), len(successes),
        float(np.median([episode.steps for episode in successes]) * contract.control_dt_ns / NS_PER_S)
        if successes else None,
        float(np.median(jerks)) if jerks else None,
        sum(episode.reason == "SAFETY_STOP" for episode in episodes),
    )


def short_name(policy: str) -> str:
    """A policy's name, or that of the run whose bundle it is."""
    path = Path(policy)
    return path.parent.name if path.name in ("bundle", "best") else path.name


def jerk_m_s3(episode: EpisodeResult, contract: RobotContract) -> float | None:
    """Root mean square of the second derivative of the velocity sent to the tool; None for less than 3 commands.

    Raises: ConfigError for a robot that does not take velocities.
    """
    if contract.action.kind is not ActionKind.EE_DELTA:
        raise ConfigError(f"delay_study: got contract {contract.name}, which takes '{contract.action.kind}'; expected "
                          "one of tool velocities, ee_delta")
    if len(episode.commands) < 3:
        return None
    dt_s = contract.control_dt_ns / NS_PER_S
    second = np.diff(episode.commands[:, :3], 2, axis=0) / dt_s**2
    return float(np.sqrt((second**2).sum(1).mean()))


def table(cells: Sequence[Cell]) -> str:
    """The cells in Markdown."""
    lines = ["| policy | delay [ms] | mode | success | 95 % interval | seconds to success | jerk [m/s³] | stopped |",
             "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
    for cell in cells:
        low, high = wilson_interval(cell.successes, cell.episodes)
        seconds = "-" if cell.seconds is None else f"{cell.seconds:.2f}"
        jerk = "-" if cell.jerk_m_s3 is None else f"{cell.jerk_m_s3:.0f}"
        lines.append(f"| {short_name(cell.policy)} | {1000 * cell.delay_s:.0f} | {cell.execution} | {cell.successes}/"
                     f"{cell.episodes} | {100 * low:.0f} to {100 * high:.0f} % | {seconds} | {jerk} | {cell.stopped} |")
    return "\n".join(lines) + "\n"


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Success and jerk over the delay, a row for each policy, a line for each mode."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    policies = list(dict.fromkeys(cell.policy for cell in cells))
    figure, axes = pyplot.subplots(len(policies), 2, figsize=(9, 2.9 * len(policies)), squeeze=False,
                                   layout="constrained", sharex=True)
    for (success, jerk), policy in zip(axes, policies, strict=True):
        for mode, colour in COLOURS.items():
            chosen = [cell for cell in cells if (cell.policy, cell.execution) == (policy, mode)]
            if not chosen:
                continue
            delays = [1000 * cell.delay_s for cell in chosen]
            rates = np.array([[cell.successes / cell.episodes, *wilson_interval(cell.successes, cell.episodes)]
                              for cell in chosen])
            success.errorbar(delays, rates[:, 0], np.abs(rates[:, 1:].T - rates[:, 0]), marker="o", ms=4, capsize=2,
                             color=colour, label=mode)
            jerk.plot(delays, [np.nan if cell.jerk_m_s3 is None else cell.jerk_m_s3 for cell in chosen], marker="o",
                      ms=4, color=colour)
        success.set(title=short_name(policy), ylabel="success", ylim=(-0.03, 1.03))
        jerk.set(ylabel="jerk of the command [m/s³]", ylim=(0, None))
        success.legend(frameon=False, fontsize=8)
        for axis in (success, jerk):
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(color="#e4e7eb", lw=0.7)
            axis.set_xlabel("inference delay [ms]")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def study(options: argparse.Namespace, console: Console) -> list[Cell]:
    """All cells; writes study.json, study.md and study.png after each. Raises: VlaError."""
    cells: list[Cell] = []
    for policy, delay_s, execution in product(options.policy, options.delays, options.executions):
        console.rule(f"{policy}  {execution}  {1000 * delay_s:.0f} ms")
        cell = measure(policy, Execution(execution), delay_s, options)
        if cell is None:
            console.print(f"{policy} cannot be run in mode {execution}; left out")
            continue
        cells.append(cell)
        found = json.dumps([asdict(cell) for cell in cells], indent=1)
        (options.output / "study.json").write_text(found + "\n", encoding="utf-8")
        (options.output / "study.md").write_text(table(cells), encoding="utf-8")
        plot(cells, options.output / "study.png")
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="delay_study", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = [str(mode) for mode in Execution]
    parser.add_argument("--policy", nargs="+", default=["tabletop"], help="bundles: folders or names of shipped ones")
    parser.add_argument("--sim", default="tabletop")
    parser.add_argument("--tasks", default="all")
    parser.add_argument("--delays", nargs="+", type=float, default=[0.0, 0.1, 0.2, 0.4], help="seconds")
    parser.add_argument("--executions", nargs="+", choices=modes, default=modes)
    parser.add_argument("--per-task", type=int, default=7, help="episodes of each task in each cell")
    parser.add_argument("--time-limit", type=float, default=16.0, help="sim time of an episode [s]")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    console = Console(width=118, highlight=False)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        console.print(table(study(options, console)), markup=False)
    except (VlaError, OSError) as problem:
        sys.stderr.write(f"delay_study: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

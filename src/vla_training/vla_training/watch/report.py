"""What a run wrote beside itself in, curves/*.png and report.html out; for a run that goes on, too.

`python -m vla_training.watch.report OUTPUT` writes the report of the run in OUTPUT anew, from its files alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from vla_policy.errors import DataError, VlaError
from vla_training.console import refuse
from vla_training.watch import figures
from vla_training.watch.facts import read_json
from vla_training.watch.measured import ClosedLoopResult, OpenLoopResult, load_open_loop, mean_of_known
from vla_training.watch.page import Section, Table, Tile, write_page
from vla_training.watch.points import Point, curve, read_points

POINTS, FACTS, OPEN_LOOP, CLOSED_LOOP = "points.csv", "run.json", "open_loop.npz", "closed_loop"
REASONS = {"finished": "finished", "stopped": "stopped by a signal", "no_improvement": "ended without improvement"}


def folder_of(output: Path) -> Path:
    """Where a run keeps what its report is made of."""
    return output / "watch"


def write_report(output: Path) -> Path:
    """Draw OUTPUT/curves/*.png and write OUTPUT/report.html. Raises: DataError where no run was watched."""
    folder, curves = folder_of(output), output / "curves"
    facts = read_json(folder / FACTS)
    if not facts:
        raise DataError(f"{output}: no {folder.name}/{FACTS} in it; expected the output folder of a training run")
    points, open_loop = read_points(folder / POINTS), load_open_loop(folder / OPEN_LOOP)
    closed_loop = read_closed_loop(folder / CLOSED_LOOP, facts.get("sim", ""))
    config = yaml.safe_dump(facts.get("config", {}), sort_keys=False, default_flow_style=None, width=100)
    sections = [
        _learning(points, curves),
        *_open_loop(open_loop, points, curves),
        *_closed_loop(closed_loop, curves),
        _section("Speed and memory", "", [figures.draw_speed(points, curves / "speed.png")]),
        Section("Data", facts=_flat(facts.get("data", {}))),
        Section("Machine and command", facts=_flat(facts.get("machine", {}) | facts.get("command", {}))),
        Section("Config", listing=config),
    ]
    subtitle = _subtitle(facts, points)
    path = output / "report.html"
    tiles = list(_tiles(points, open_loop, closed_loop))
    write_page(path, f"Training run {output.resolve().name}", subtitle, tiles, sections)
    return path


def read_closed_loop(folder: Path, sim: str) -> list[ClosedLoopResult]:
    """The results in a folder of `ClosedLoopRunner`, by step."""
    files = sorted(folder.glob("step_*.json")) if folder.is_dir() else []
    return [ClosedLoopResult.read(step_of(path), sim, path) for path in files]


def step_of(path: Path) -> int:
    """The step in the name of a file of `ClosedLoopRunner`."""
    return int(path.stem.removeprefix("step_"))


def _subtitle(facts: Mapping[str, Any], points: list[Point]) -> str:
    end = facts.get("end", {})
    words = REASONS.get(end.get("reason", ""), "under way, or ended without a word")
    step = end.get("step", points[-1].step if points else 0)
    minutes = end.get("minutes", points[-1].minutes if points else 0.0)
    date = facts.get("command", {}).get("date", "")
    return f"{words} after {step} steps and {minutes:.1f} minutes of training · {date}"


def _tiles(
    points: list[Point], open_loop: OpenLoopResult | None, closed_loop: list[ClosedLoopResult]
) -> Iterator[Tile]:
    for name, label in (("loss/loss", "training loss"), ("validation/loss", "held-out loss")):
        steps, values = curve(points, name)
        if values:
            best = min(range(len(values)), key=values.__getitem__)
            yield Tile(label, f"{values[-1]:.4g}", f"best {values[best]:.4g} at step {steps[best]}")
    if open_loop is not None:
        error = open_loop.scalars().get("open_loop/relative_error")
        if error is not None:
            yield Tile("action error, open loop", f"{100 * error:.0f} %", "of the spread of the recorded actions")
    if closed_loop:
        last = closed_loop[-1]
        low, high = last.interval_95
        yield Tile(f"success in {last.sim}", f"{100 * last.success_rate:.0f} %",
                   f"{100 * low:.0f} to {100 * high:.0f} %, {last.episodes} episodes, step {last.step}")
    for name, label, scale, unit in (("speed/samples_per_s", "samples a second", 1.0, ""),
                                     ("speed/data_wait_share", "waiting for data", 100.0, " %")):
        _, values = curve(points, name)
        if values:
            yield Tile(label, f"{scale * sum(values) / len(values):.3g}{unit}", "mean of the run")


def _learning(points: list[Point], curves: Path) -> Section:
    return _section(
        "Learning",
        "Each part of the loss: in training, a mean over some steps; on held-out episodes, with the averaged weights.",
        [figures.draw_losses(points, curves / "losses.png"), figures.draw_rate(points, curves / "learning_rate.png")],
    )


def _open_loop(result: OpenLoopResult | None, points: list[Point], curves: Path) -> Iterator[Section]:
    if result is None:
        return
    shares_A = mean_of_known(result.relative_KA[: result.execute_rows], axis=0)
    table = Table(
        ("dimension", "unit", "mean absolute error", "spread of the recording", "error / spread"),
        [
            (name, unit, f"{error:.4g}", f"{spread:.4g}", "-" if np.isnan(share) else f"{share:.2f}")
            for name, unit, error, spread, share in zip(
                result.names, result.units, result.error_A, result.spread_A, shares_A, strict=True
            )
        ],
    )
    errors = _section(
        "Open loop: action error",
        f"The averaged weights on {result.chunks} chunks of {result.episodes} held-out episodes, through the code that "
        "drives the robot. Bars: mean absolute error by row of the chunk, dark where rows are executed; dashed: the "
        "spread (standard deviation) of the recorded actions.",
        [figures.draw_action_errors(result, curves / "action_error.png"),
         figures.draw_error_curve(points, curves / "action_error_over_time.png")],
    )
    yield Section(errors.title, errors.text, errors.pictures, table)
    if result.drawn:
        pictures = [
            (figures.draw_trajectory(one, result.names, result.units, curves / f"trajectory_{number}.png"),
             f"{one.instruction} ({one.key})")
            for number, one in enumerate(result.drawn)
        ]
        yield Section("Open loop: predicted and recorded",
                      "Black: recorded. Orange: what the policy would have executed. Pale: whole chunks.", pictures)


def _closed_loop(results: list[ClosedLoopResult], curves: Path) -> Iterator[Section]:
    if not results:
        return
    tasks = list(dict.fromkeys(task for result in results for task in result.tasks))
    table = Table(
        ("task", *(f"step {result.step}" for result in results[-6:])),
        [(task, *("{}/{}".format(*result.tasks[task]) if task in result.tasks else "-" for result in results[-6:]))
         for task in tasks],
    )
    success = figures.draw_success(results, curves / "success.png")
    text = "Episodes played by the bundle of that step, in a process beside the training."
    yield Section("Closed loop: success in the simulator", text, [(success, "")], table)


def _section(title: str, text: str, pictures: Sequence[Path | None]) -> Section:
    return Section(title, text, [(picture, "") for picture in pictures if picture is not None])


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as `outer.inner`; a list of mappings by number."""
    lines: dict[str, str] = {}
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            lines |= _flat(value, f"{name}.")
        else:
            lines[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("output", type=Path, help="the output folder of a training run")
    console = Console(highlight=False)
    try:
        console.print(f"written to {write_report(parser.parse_args(arguments).output)}", soft_wrap=True)
    except VlaError as problem:
        refuse(console, problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

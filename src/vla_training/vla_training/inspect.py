"""A data set of any known format in, what a person should know of it before training out.

`ros2 run vla_training inspect outputs/demonstrations --output outputs/inspected`
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vla_policy.errors import VlaError
from vla_training.console import refuse
from vla_training.datasets.registry import READERS, open_source
from vla_training.inspection.pictures import Sheet, draw_contact_sheet, draw_histograms, draw_lengths
from vla_training.inspection.survey import Survey, survey
from vla_training.watch.facts import results_at, write_json

WIDTH = 118  # where the output is no terminal, which would tell its own
LISTED = 30  # tasks and sentences in the terminal; the file has all


def facts(found: Survey) -> dict[str, Any]:
    """The survey as numbers and words, for inspect.json."""
    spec = found.spec
    return {
        "format": spec.format,
        "episodes": found.episodes,
        "frames": found.frames,
        "episodes_read": found.read,
        "length": _spread(found.lengths),
        "published_rate_hz": spec.rate_hz,
        "measured_rate_hz": _spread(found.rates_hz),
        "dropped_frames": found.dropped_frames,
        "gaps": [{"episode": gap.episode, "frame": gap.frame, "missing": gap.missing} for gap in found.gaps],
        "cameras": {name: list(size) for name, size in spec.cameras.items()},
        "columns": {
            name: {"dtype": column.dtype, "shape": list(column.shape), "names": column.names}
            for name, column in spec.columns.items()
        },
        "actions": {tally.name: _percentiles(tally.dimensions, tally.sample()) for tally in found.actions},
        "tasks": dict(found.tasks.most_common()),
        "sentences": dict(found.sentences.most_common()),
        "findings": list(found.findings()),
    }


def show(found: Survey, where: Path, console: Console) -> None:
    """Print the survey as a person reads it."""
    spec, lengths = found.spec, _spread(found.lengths)
    console.print(f"[bold]{_plain(str(where))}[/]: {spec.format}, {found.episodes} episodes, {found.frames} frames")
    if lengths:
        console.print(f"lengths: {lengths['min']:g} to {lengths['max']:g} frames, median {lengths['median']:g}")
    published = f"{spec.rate_hz:g} Hz published" if spec.rate_hz else "no rate published"
    rates = _spread(found.rates_hz)
    measured = (f"{rates['median']:.4g} Hz measured ({rates['min']:.4g} to {rates['max']:.4g})" if rates
                else "no timestamps to measure it by")
    console.print(f"rate: {published}, {measured}; dropped frames: {found.dropped_frames}")
    for name, (height, width) in spec.cameras.items():
        console.print(f"camera {name}: " + (f"{width}x{height}" if width else "size known after decoding"))
    for name, column in spec.columns.items():
        named = f" ({', '.join(column.names)})" if column.names else ""
        console.print(f"column {name}: {column.dtype} {list(column.shape)}{named}", markup=False)
    console.print(_counted("task", found.tasks))
    console.print(_counted("sentence", found.sentences))
    for tally in found.actions:
        console.print(_action_table(tally.name, tally.dimensions, tally.sample()))
    findings = list(found.findings())
    console.print(f"[bold]{len(findings)} findings[/]" if findings else "[green]nothing odd was found[/]")
    for line in findings:
        console.print(f"[yellow]-[/] {_plain(line)}", soft_wrap=True)
    if found.read < found.episodes:
        console.print(f"{found.read} of {found.episodes} episodes were read for rates, numbers and findings")


def _spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    return {"min": float(np.min(values)), "median": float(np.median(values)), "max": float(np.max(values))}


def _percentiles(dimensions: Sequence[str], sample: np.ndarray) -> dict[str, dict[str, float]]:
    if not len(sample):
        return {}
    rows = np.vstack([sample.mean(0), sample.std(0), np.percentile(sample, (0, 1, 50, 99, 100), axis=0)])
    words = ("mean", "std", "min", "p1", "p50", "p99", "max")
    return {name: dict(zip(words, map(float, rows[:, column]), strict=True)) for column, name in enumerate(dimensions)}


def _counted(what: str, counts: Counter[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(what)
    table.add_column("episodes", justify="right")
    for word, count in counts.most_common(LISTED):
        table.add_row(_plain(word) or "(none)", str(count))
    if len(counts) > LISTED:
        table.add_row(f"… {len(counts) - LISTED} more", str(sum(counts.values()) - _most(counts)))
    return table


def _most(counts: Counter[str]) -> int:
    return sum(count for _, count in counts.most_common(LISTED))


def _action_table(name: str, dimensions: Sequence[str], sample: np.ndarray) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(_plain(name))
    rows = _percentiles(dimensions, sample)
    for word in next(iter(rows.values()), {}):
        table.add_column(word, justify="right")
    for dimension, values in rows.items():
        table.add_row(_plain(dimension), *(f"{value:.4g}" for value in values.values()))
    return table


def _plain(text: str) -> str:
    """Text that rich shows as it is."""
    return text.replace("[", r"\[")


def _write(folder: Path, found: Survey, pictures: list[Path | None], console: Console) -> None:
    write_json(folder / "inspect.json", facts(found))
    names = ["inspect.json", *(picture.name for picture in pictures if picture is not None)]
    console.print(f"written to {folder}: {', '.join(names)}", markup=False, soft_wrap=True)


def _inspect(options: argparse.Namespace, console: Console) -> None:
    source = open_source(options.dataset, options.format)
    progress = track(range(len(source.episodes)), "reading", console=console, transient=True)
    found = survey(source, options.episodes, lambda: next(progress, None) and None)
    progress.close()
    pictures: list[Path | None] = []
    if options.output is not None:
        with results_at(options.output):
            options.output.mkdir(parents=True, exist_ok=True)
            pictures = [
                draw_histograms(found, options.output / "actions.png"),
                draw_lengths(found, options.output / "lengths.png"),
                draw_contact_sheet(source, options.output / "contact_sheet.png", Sheet(), found.faults),
            ]
    show(found, options.dataset, console)
    if options.output is not None:
        with results_at(options.output):
            _write(options.output, found, pictures, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="inspect", description=__doc__)
    parser.add_argument("dataset", type=Path, help="a folder with a data set")
    parser.add_argument("--format", choices=sorted(READERS), help="found out by default")
    parser.add_argument("--episodes", type=int, help="read this many, spread evenly (default: all)")
    parser.add_argument("--output", type=Path, help="folder for inspect.json and the pictures")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        _inspect(options, console)
    except VlaError as problem:
        refuse(console, problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

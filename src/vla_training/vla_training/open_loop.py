"""A policy bundle and a data set, or a recorder's bags, in; how far its actions are from the recorded ones, and how
long they take, out.

`ros2 run vla_training open_loop outputs/run/bundle outputs/recorded --episodes 20 --output outputs/open_loop`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from vla_policy.checkpoint import load_bundle
from vla_policy.engine import choose_device
from vla_policy.errors import VlaError
from vla_policy.resources import find_policy
from vla_policy.strict import load_yaml
from vla_training.console import refuse
from vla_training.datasets.config import Source
from vla_training.datasets.prepared import prepare_source
from vla_training.watch.facts import results_at, write_json
from vla_training.watch.figures import draw_action_errors, draw_trajectory
from vla_training.watch.measured import OpenLoopResult, save_open_loop
from vla_training.watch.open_loop import measure, replaying
from vla_training.watch.recordings import recordings


def run(bundle_folder: Path, source: Source, episodes: int, drawn: int, device: str) -> OpenLoopResult:
    """Measure a bundle on the episodes of a source, spread evenly. Raises: VlaError for what cannot be read or fit."""
    bundle = load_bundle(bundle_folder, choose_device(device))
    prepared = prepare_source(source, bundle.contract, bundle.config, "none")
    chosen = [np.ones(len(prepared.episodes), np.bool_)]
    found = recordings([prepared], chosen, bundle.contract, bundle.config, episodes)
    return measure(replaying(bundle, choose_device(device)), found, bundle.contract, drawn)


def show(result: OpenLoopResult, console: Console) -> None:
    """Print the errors by dimension, and relative to the spread by row of the chunk."""
    console.print(f"{result.chunks} chunks of {result.episodes} episodes; errors of their first {result.execute_rows} "
                  "rows, which are executed", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for word in ("dimension", "unit", "mean absolute error", "spread", "error / spread"):
        table.add_column(word, justify="left" if word in ("dimension", "unit") else "right")
    values = result.scalars()
    for name, unit, error, spread in zip(result.names, result.units, result.error_A, result.spread_A, strict=True):
        share = values.get(f"open_loop/relative/{name}")
        table.add_row(name, unit, f"{error:.4g}", f"{spread:.4g}", "-" if share is None else f"{share:.2f}")
    console.print(table)
    rows = (values.get(f"open_loop/row/{row}") for row in range(len(result.error_KA)))
    half, most = np.percentile(result.step_ms_C, [50, 95])
    console.print(f"a step takes {half:.1f} ms, 95 % of them at most {most:.1f} ms")
    console.print("error / spread by row: " + "  ".join("-" if value is None else f"{value:.2f}" for value in rows))


def _write(folder: Path, result: OpenLoopResult, console: Console) -> None:
    save_open_loop(folder / "open_loop.npz", result)
    write_json(folder / "open_loop.json", {
        "episodes": result.episodes, "chunks": result.chunks, "execute_rows": result.execute_rows,
        "units": dict(zip(result.names, result.units, strict=True)), "values": result.scalars(),
        "step_ms": dict(zip(("p50", "p95"), np.percentile(result.step_ms_C, [50, 95]).round(3).tolist(), strict=True)),
    })
    draw_action_errors(result, folder / "action_error.png")
    for number, one in enumerate(result.drawn):
        draw_trajectory(one, result.names, result.units, folder / f"trajectory_{number}.png")
    console.print(f"written to {folder}", markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="open_loop", description=__doc__)
    parser.add_argument("bundle", help="a folder, or the name of a shipped policy")
    parser.add_argument("dataset", type=Path, help="a data set; or a .yaml file that says what stands for one in "
                                                   "`datasets` of a training file: path, preset, cameras, …")
    parser.add_argument("--episodes", type=int, default=20, help="at most, spread evenly over the data set")
    parser.add_argument("--drawn", type=int, default=3, help="episodes whose trajectories are drawn")
    parser.add_argument("--output", type=Path, help="folder for open_loop.json, .npz and the pictures")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    try:
        is_file = options.dataset.suffix in (".yaml", ".yml")
        source = load_yaml(Source, options.dataset, VlaError) if is_file else Source(path=str(options.dataset))
        result = run(find_policy(options.bundle), source, options.episodes, options.drawn, options.device)
        show(result, console)
        if options.output is not None:
            with results_at(options.output):
                _write(options.output, result, console)
    except VlaError as problem:
        refuse(console, problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

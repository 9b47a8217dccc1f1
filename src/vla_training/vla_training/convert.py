"""A data set of any known format in, a LeRobot v3 data set out.

`ros2 run vla_training convert SOURCE OUTPUT --workers 4`

Run the same command again to go on after an interruption. OUTPUT/meta/conversion.json tells what was left out and why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from vla_policy.errors import DataError, VlaError
from vla_policy.provenance import provenance
from vla_training.console import refuse
from vla_training.datasets.lerobot.from_source import Conversion, Outcome, convert, plan_conversion
from vla_training.datasets.registry import READERS, open_source

LISTED = 10  # of what was left out, in the terminal; the file has all
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of the data set")
    parser.add_argument("output", type=Path, help="a new folder")
    parser.add_argument("--format", choices=sorted(READERS), help="found out where it is left out")
    parser.add_argument("--workers", type=_positive, default=1, help="processes")
    parser.add_argument("--rate-hz", type=float, help="frames a second, for data that does not tell")
    parser.add_argument("--skip-bad", action="store_true", help="leave out episodes that cannot be read, and list them")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    try:
        source = open_source(options.source, options.format)
        plan = plan_conversion(source, options.output, options.rate_hz, options.skip_bad)
        outcome = _convert(plan, options.workers, provenance("convert", arguments), console)
    except VlaError as problem:
        refuse(console, problem)
        if isinstance(problem, DataError) and not options.skip_bad:
            console.print("--skip-bad leaves out episodes that cannot be read, and goes on from here")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on")
        return INTERRUPTED
    _report(console, options.output, outcome)
    return 0


def _convert(plan: Conversion, workers: int, command: dict[str, str], console: Console) -> Outcome:
    """Show a progress line of frames."""
    columns = (TextColumn("converting"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        bar = progress.add_task("", total=sum(info.length for info in plan.source.episodes))
        return convert(plan, workers, command, lambda frames: progress.advance(bar, frames))


def _report(console: Console, output: Path, outcome: Outcome) -> None:
    resumed = f", {outcome.resumed} parts of them by an earlier run" if outcome.resumed else ""
    lines = [f"{output}: {outcome.episodes} episodes, {outcome.frames} frames{resumed}"]
    lines += [f"  left out: {skip.reason}" for skip in outcome.skipped[:LISTED]]
    if len(outcome.skipped) > LISTED:
        lines.append(f"  … {len(outcome.skipped)} in all, see {output / 'meta/conversion.json'}")
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())

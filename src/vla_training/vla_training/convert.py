"""A data set of any known format in, a LeRobot v3 data set out, or recorded bags.

`ros2 run vla_training convert SOURCE OUTPUT --workers 4`
`ros2 run vla_training convert SOURCE OUTPUT --to bag --robot tabletop`

Run the same command again to go on after an interruption. OUTPUT/meta/conversion.json (of bags OUTPUT/conversion.json)
tells what was left out and why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, DataError, VlaError
from vla_policy.provenance import provenance
from vla_policy.recording import Outcome
from vla_policy.resources import find_contract
from vla_training.console import refuse
from vla_training.datasets.config import Source
from vla_training.datasets.conversion import Done
from vla_training.datasets.lerobot.from_source import convert, plan_conversion
from vla_training.datasets.recorded.reader import check_contract, open_recorded
from vla_training.datasets.recorded.writer import plan_bags, write_bags
from vla_training.datasets.registry import READERS, detect_format, open_source
from vla_training.datasets.source import EpisodeSource

LISTED = 10  # of what was left out, in the terminal; the file has all
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of the data set")
    parser.add_argument("output", type=Path, help="a new folder")
    parser.add_argument("--to", choices=("lerobot", "bag"), default="lerobot", help="what is written")
    parser.add_argument("--robot", help="robot contract: a name or a path; bags are written for it, and recordings of "
                                        "another one are refused")
    parser.add_argument("--format", choices=sorted(READERS), help="found out where it is left out")
    parser.add_argument("--outcome", nargs="+", choices=get_args(Outcome), help="of the recordings to take; those that "
                                                                                "did not fail where it is left out")
    parser.add_argument("--workers", type=_positive, default=1, help="processes")
    parser.add_argument("--rate-hz", type=float, help="frames a second, for data that does not tell")
    parser.add_argument("--skip-bad", action="store_true", help="leave out episodes that cannot be read, and list them")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    try:
        contract = load_contract(find_contract(options.robot)) if options.robot else None
        do = _to_bags if options.to == "bag" else _to_lerobot
        done = do(options, contract, provenance("convert", arguments), console)
    except VlaError as problem:
        refuse(console, problem)
        if isinstance(problem, DataError) and not options.skip_bad:
            console.print("--skip-bad leaves out episodes that cannot be read, and goes on from here")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on")
        return INTERRUPTED
    _report(console, options.output, done)
    return 0


def _to_lerobot(options: argparse.Namespace, contract: RobotContract | None, command: dict[str, str],
                console: Console) -> Done:
    source = _open(options)
    if contract is not None:
        check_contract(source, contract)
    plan = plan_conversion(source, options.output, options.rate_hz, options.skip_bad)
    with _progress(console, source) as on_frames:
        return convert(plan, options.workers, command, on_frames)


def _to_bags(options: argparse.Namespace, contract: RobotContract | None, command: dict[str, str],
             console: Console) -> Done:
    if contract is None:
        raise ConfigError("--to bag: got no --robot, expected the contract that the bags are for")
    where = Source(path=str(options.source), format=options.format, rate_hz=options.rate_hz)
    plan = plan_bags(where, _open(options), contract, options.output, options.skip_bad)
    with _progress(console, plan.data) as on_frames:
        return write_bags(plan, options.workers, command, on_frames)


def _open(options: argparse.Namespace) -> EpisodeSource:
    """The data set. Raises: DataError; ConfigError where an outcome is asked of data that tells none."""
    if not options.outcome:
        return open_source(options.source, options.format)
    format = options.format or detect_format(options.source)
    if format != "recorded":
        raise ConfigError(f"--outcome: got {' '.join(options.outcome)} for a data set of format {format}, expected "
                          "recorded bags; the others tell no outcome")
    return open_recorded(options.source, options.outcome)


@contextmanager
def _progress(console: Console, source: EpisodeSource) -> Iterator[Callable[[int], None]]:
    """Show a progress line of frames; give what tells it of those that are done."""
    columns = (TextColumn("converting"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        bar = progress.add_task("", total=sum(info.length for info in source.episodes))
        yield lambda frames: progress.advance(bar, frames)


def _report(console: Console, output: Path, done: Done) -> None:
    resumed = f", {done.resumed} {done.unit} of them by an earlier run" if done.resumed else ""
    lines = [f"{output}: {done.episodes} episodes, {done.frames} frames{resumed}"]
    lines += [f"  left out: {skip.reason}" for skip in done.skipped[:LISTED]]
    if len(done.skipped) > LISTED:
        lines.append(f"  … {len(done.skipped)} in all, see {done.report}")
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())

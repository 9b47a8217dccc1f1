"""A dataset folder in, a summary for a person out: `ros2 run vla_training inspect outputs/demonstrations`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vla_policy.errors import VlaError
from vla_training.datasets.lerobot import LeRobotDataset


def describe(dataset: LeRobotDataset) -> str:
    """Sizes, episodes by task, columns: a few lines."""
    tasks = Counter(str(episode.extra.get("task_name", episode.task)) for episode in dataset.episodes)
    lines = [f"{dataset.root}: {len(dataset.episodes)} episodes, {len(dataset)} frames at {dataset.fps:g} Hz"]
    lines += [f"  {count:6d}  {name}" for name, count in sorted(tasks.items())]
    lines += [
        f"  {key}: {feature.dtype} {json.dumps(list(feature.shape))}"
        for key, feature in dataset.features.items()
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="inspect", description=__doc__)
    parser.add_argument("dataset", type=Path, help="a LeRobot v3 folder")
    console = Console(highlight=False)
    try:
        console.print(describe(LeRobotDataset(parser.parse_args(arguments).dataset)), markup=False)
    except VlaError as problem:
        console.print(f"[red]{problem}[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

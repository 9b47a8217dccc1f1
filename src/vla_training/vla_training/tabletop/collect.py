"""Task names, chains and seeds in, a LeRobot v3 dataset of successful demonstrations out.

`ros2 run vla_training collect --output outputs/demonstrations --episodes 100 --chains 2000 --workers 2`

Frames lie at the policy's rate (every --rows-per-frame control rows), at the model's image size, resized by
the function that serves the policy. Beside the dataset's own files, meta/collection.json tells command, seeds
and success of the experts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sim_bridges.tabletop.sim import TabletopSim
from sim_bridges.tabletop.tasks import TASKS, find_task
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.policy import Policy
from vla_policy.provenance import provenance
from vla_policy.resources import find_contract
from vla_training.console import refuse
from vla_training.datasets.lerobot import Shard, ShardWriter, finalize
from vla_training.datasets.mapping import described
from vla_training.tabletop.demonstrator import Recording, demonstrate, demonstrate_chain, features
from vla_training.tabletop.workers import workers

CHAIN = "chain"  # in a job, instead of a task: five tasks one after the other
Job = tuple[str, int]  # task, seed
Outcome = tuple[str, bool, int]  # task, success, rows
JOB_DONE: Outcome = ("", True, 0)  # a chain gives several outcomes


def collect(
    root: Path,
    contract: RobotContract,
    jobs: Sequence[Job],
    recording: Recording,
    worker_count: int,
    console: Console,
    policy: Path | None = None,
) -> dict[str, dict[str, int]]:
    """Record every job, keep the successful ones; `policy` may lead in (see `demonstrate`). Returns per task:
    tried, kept, rows.
    """
    if root.exists():
        raise ConfigError(
            f"{root}: already there; expected a new folder; delete it or choose another --output"
        )
    root.mkdir(parents=True)
    with workers(worker_count) as (pool, queue):
        futures = [
            pool.submit(_record_shard, root, contract, jobs[i::worker_count], recording, policy, i, queue)
            for i in range(worker_count)
        ]
        report = _watch(queue, futures, len(jobs), console)
        shards = [future.result() for future in futures]
    finalize(
        root,
        shards,
        features(contract, recording.image_size, recording.rows_per_frame),
        contract.control_rate_hz / recording.rows_per_frame,
        contract.name,
        described(contract),
    )
    return report


def _record_shard(
    root: Path,
    contract: RobotContract,
    jobs: Sequence[Job],
    recording: Recording,
    policy: Path | None,
    index: int,
    queue: Queue[Outcome],
) -> Shard:
    columns = features(contract, recording.image_size, recording.rows_per_frame)
    writer = ShardWriter(root, index, columns, contract.control_rate_hz / recording.rows_per_frame)
    sim = TabletopSim()
    torch.set_num_threads(1)  # the workers share the cores among themselves
    leader = None if policy is None else Policy.load(policy, "cpu", contract)
    for task, seed in jobs:
        if task == CHAIN:
            shown = demonstrate_chain(sim, contract, seed, recording, leader)
        else:
            shown = [demonstrate(sim, contract, task, seed, recording, leader)]
        for one in shown:
            name = one.episode.task
            if one.success:
                writer.add_episode(one.columns, one.episode.instruction, {"task_name": name, "seed": seed})
            queue.put((name, one.success, one.rows))
        queue.put(JOB_DONE)
    sim.close()
    return writer.close()


def _watch(
    queue: Queue[Outcome], futures: Sequence[Future[Shard]], total: int, console: Console
) -> dict[str, dict[str, int]]:
    """Show progress until all jobs are in or a worker died; its error is raised by `future.result()`."""
    report: dict[str, dict[str, int]] = {}
    columns = (
        TextColumn("collecting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[kept]} kept"),
    )
    with Progress(*columns, console=console, refresh_per_second=1) as progress:
        bar, kept = progress.add_task("", total=total, kept=0), 0
        while not progress.finished:
            try:
                task, success, rows = queue.get(timeout=1.0)
            except Empty:
                if any(future.done() and future.exception() for future in futures):
                    return report
                continue
            if (task, success, rows) == JOB_DONE:
                progress.advance(bar)
                continue
            row = report.setdefault(task, {"tried": 0, "kept": 0, "rows": 0})
            row["tried"] += 1
            row["kept"] += success
            row["rows"] += rows
            kept += success
            progress.update(bar, kept=kept)
    return report


def make_jobs(counts: Mapping[str, int], first_seed: int) -> list[Job]:
    """Tasks and chains in turn, each with seeds from `first_seed` on."""
    most = max(counts.values())
    return [(name, first_seed + i) for i in range(most) for name in counts if i < counts[name]]


def parse_counts(episodes: int, overrides: Sequence[str]) -> dict[str, int]:
    """Episodes per task: the same for all, but for `TASK=COUNT` overrides. Raises: VlaError, ConfigError."""
    counts = dict.fromkeys(TASKS, episodes)
    for override in overrides:
        name, _, count = override.partition("=")
        find_task(name)
        if not count.isdigit():
            raise ConfigError(f"--task: got '{override}', expected TASK=COUNT, as in press_button=300")
        counts[name] = int(count)
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="collect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--episodes", type=int, default=600, help="per task")
    parser.add_argument(
        "--task", action="append", default=[], metavar="TASK=COUNT", help="another count for one task"
    )
    parser.add_argument("--chains", type=int, default=0, help="chains of five tasks, each an episode of its own")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows-per-frame", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument(
        "--policy", type=Path, help="bundle that drives for a while before the expert takes over"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    console, started = Console(), time.monotonic()
    try:
        counts = parse_counts(options.episodes, options.task)
        jobs = make_jobs(counts | {CHAIN: options.chains}, options.first_seed)
        recording = Recording(image_size=options.image_size, rows_per_frame=options.rows_per_frame)
        report = collect(
            options.output,
            load_contract(find_contract(options.robot)),
            jobs,
            recording,
            options.workers,
            console,
            options.policy,
        )
    except VlaError as problem:
        refuse(console, problem)
        return 1
    facts = {
        "first_seed": options.first_seed,
        "policy": str(options.policy or ""),
        "counts": counts,
        "chains": options.chains,
        "recording": asdict(recording),
        "report": report,
        "seconds": round(time.monotonic() - started, 1),
        "provenance": provenance("collect", arguments),
    }
    (options.output / "meta/collection.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for task, row in report.items():
        console.print(
            f"{task:22s} {row['kept']:5d} of {row['tried']:5d} kept, {row['rows'] / row['tried']:5.1f} rows",
            highlight=False,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Data sets in; samples a second, the share of time spent waiting for data, and memory over a long run, out.

    python -m vla_training.bench_loader bench.yaml --robot calvin --batches 40 --batch-size 8 --workers 1
    python -m vla_training.bench_loader bench.yaml --robot tabletop --data outputs/demonstrations --long 2000

Each data set of the file is measured by itself and next to the naive way, in the same run: all frames from the first
of a window to the last that its actions reach are decoded, and all columns of its episode are read, for every window
anew. A LeRobot data set is also read by the public `lerobot`, where it can be imported by --lerobot-python.

samples/s: windows a second while nothing else is done. wait: the share of time that a training step of --step-ms would
wait for its batch. memory: what this process and its workers hold for themselves (files mapped into memory belong to
the system), at the start, in the middle and at the end of --long batches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import DataError, VlaError
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.observation.resize import resize_image
from vla_policy.resources import find_contract
from vla_training.config import load_training_file
from vla_training.console import refuse
from vla_training.datasets.batch import Batch
from vla_training.datasets.config import Augmentation, Source
from vla_training.datasets.loader import window_loader
from vla_training.datasets.prepared import PreparedSource
from vla_training.datasets.training_data import TrainingData, open_training_data
from vla_training.datasets.windows import Draw, Window, WindowSet
from vla_training.watch.facts import results_at, write_json

WARM_UP = 2  # batches that are not measured: workers start, files open
MB = 1e6


@dataclass(frozen=True, slots=True)
class Speed:
    """How a way to load did. wait_share: of a loop whose step takes `step_ms`; None where it was not measured."""

    way: str
    samples_per_s: float
    wait_share: float | None


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a loader."""

    batches: int
    batch_size: int
    window: int
    workers: int
    step_ms: float

    def draws(self, count: int) -> Iterator[list[Draw]]:
        """The draws of `count` batches."""
        for step in range(count):
            yield [Draw(step, slot, self.window) for slot in range(self.batch_size)]


class NaiveWindows(WindowSet):
    """The same windows, with all that lies between their first frame and the last that their actions reach decoded."""

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        for draw in draws:
            window = self.window(draw)
            source = self.sources[window.source]
            source.data.columns(int(source.episodes[window.episode]))
        return super().__getitems__(draws)

    def read_images(self, window: Window, frames: NDArray[np.int64], view: int) -> Sequence[NDArray[np.uint8]]:
        """The frames asked for, out of all that are decoded."""
        source = self.sources[window.source]
        count = source.lengths[window.episode]
        span = np.arange(frames[0], min(frames[-1] + 1 + chunk_frames(source, self.model), count))
        images = source.data.images(int(source.episodes[window.episode]), source.cameras[view], span)
        small = [resize_image(image, source.image_size) for image in images]
        return [small[frame - frames[0]] for frame in frames]


def chunk_frames(source: PreparedSource, model: ModelConfig) -> int:
    """How many frames a chunk of actions reaches over, rounded up."""
    return -(-model.action_chunk_size * source.rates.join // source.rates.rows_per_frame)


def speed(way: str, windows: WindowSet, load: Load) -> Speed:
    """Measure a set of windows: once as fast as it goes, once with a consumer that takes its time."""
    loader = iter(window_loader(windows, load.draws(WARM_UP + load.batches), load.workers))
    for _ in range(WARM_UP):
        next(loader)
    started = time.perf_counter()
    samples = sum(len(batch) for batch in loader)
    rate = samples / (time.perf_counter() - started)
    return Speed(way, rate, _wait_share(windows, load) if load.step_ms else None)


def _wait_share(windows: WindowSet, load: Load) -> float:
    loader = window_loader(windows, load.draws(WARM_UP + load.batches), load.workers)
    started = waited = 0.0
    for number, _ in enumerate(loader):
        if number == WARM_UP - 1:
            started, waited = time.perf_counter(), loader.wait_s
        time.sleep(load.step_ms / 1000)
    return (loader.wait_s - waited) / (time.perf_counter() - started)


def memory_over(windows: WindowSet, load: Load, batches: int) -> list[float]:
    """MB held at the start (after the warm-up), in the middle and at the end of `batches` batches."""
    held = []
    marks = (WARM_UP, WARM_UP + batches // 2, WARM_UP + batches)
    loader = window_loader(windows, load.draws(marks[-1]), load.workers)
    for number, _ in enumerate(loader, start=1):
        if number in marks:
            held.append(own_memory_mb())
    return held


def own_memory_mb() -> float:
    """Memory of this process and its workers, without what they share with files or each other."""
    here = psutil.Process()
    family = [here, *here.children(recursive=True)]
    return sum(info.rss - info.shared for info in (process.memory_info() for process in family)) / MB


def public_lerobot(source: Source, data: TrainingData, load: Load, python: str) -> Speed | None:
    """The same windows by lerobot's own data set, drawn at random; None where that Python does not have it.

    Raises: DataError where it is there and fails.
    """
    prepared = data.sources[0]
    if prepared.data.spec.format != "lerobot":
        return None
    script = Path(__file__).with_name("bench_lerobot.py")
    if subprocess.run([python, "-P", script, "--there"], capture_output=True, check=False).returncode:
        return None
    asked = {
        "folder": source.path,
        "cameras": prepared.cameras,
        "frames_s": [frame * prepared.rates.stride / prepared.data.spec.rate_hz for frame in range(load.window)],
        "chunk_s": [frame / prepared.data.spec.rate_hz for frame in range(chunk_frames(prepared, data.model))],
        "warm_up": WARM_UP,
    } | asdict(load)
    done = subprocess.run([python, "-P", script, json.dumps(asked)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"{source.path}: lerobot in {python} failed: {done.stderr.strip()[-300:]}")
    return Speed("public lerobot", float(done.stdout.split()[-1]), None)


def measure(
    source: Source,
    contract: RobotContract,
    model: ModelConfig,
    load: Load,
    long: int,
    caches: Sequence[str],
    python: str,
) -> dict[str, object]:
    """All figures of one data set."""
    speeds: list[Speed] = []
    memory: dict[str, list[float]] = {}
    for cache in caches:
        data = open_training_data([source], contract, model, cache=cache)
        tokenizer = Tokenizer.build(data.instructions)
        windows = data.train(tokenizer, data.statistics.normalizers, Augmentation())
        speeds.append(speed("frames used" if cache == "none" else "decoded before", windows, load))
        if cache == "none":
            naive = data.train(tokenizer, data.statistics.normalizers, Augmentation(), kind=NaiveWindows)
            speeds.append(speed("every frame", naive, load))
            public = public_lerobot(source, data, load, python)
            speeds += [public] if public else []
        if long:
            memory[cache] = memory_over(windows, load, long)
    spec = data.sources[0].data.spec
    return {
        "path": source.path,
        "format": spec.format,
        "cameras": {name: list(spec.cameras[name]) for name in data.sources[0].cameras},
        "load": asdict(load),
        "image_size": model.image_size,
        "chunk": model.action_chunk_size,
        "speeds": [asdict(one) for one in speeds],
        "memory_mb": memory,
        "long": long,
    }


def show(console: Console, result: dict[str, object]) -> None:
    """The figures of one data set as a table."""
    load = result["load"]
    title = f"{result['path']} ({result['format']}), window {load['window']}, {load['workers']} workers"
    table = Table("way", "samples/s", "ratio", f"wait at {load['step_ms']:g} ms a step", title=title)
    naive = next((one for one in result["speeds"] if one["way"] == "every frame"), result["speeds"][0])
    for one in result["speeds"]:
        wait = "" if one["wait_share"] is None else f"{100 * one['wait_share']:.0f} %"
        ratio = one["samples_per_s"] / naive["samples_per_s"]
        table.add_row(one["way"], f"{one['samples_per_s']:.1f}", f"{ratio:.2f}", wait)
    console.print(table)
    for cache, held in result["memory_mb"].items():
        told = " → ".join(f"{value:.0f}" for value in held)
        console.print(f"memory, cache {cache}, {result['long']} batches: {told} MB", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="bench_loader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="config/training/*.yaml or config/models/*.yaml")
    parser.add_argument("--data", type=Path, nargs="+", default=(), help="data sets, instead of the config's")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--batches", type=int, default=20, help="to measure over")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0, help="processes that load")
    parser.add_argument(
        "--step-ms", type=float, default=0.0, help="of a training step that waits for data; 0: not measured"
    )
    parser.add_argument("--long", type=int, default=0, help="batches over which memory is watched; 0: not watched")
    parser.add_argument("--cache", nargs="+", choices=("none", "decoded"), default=("none", "decoded"))
    parser.add_argument("--lerobot-python", default=sys.executable, help="a Python that has lerobot")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    console = Console()
    torch.set_num_threads(1)
    try:
        file, training = load_training_file(options.config, options.data)
        contract = load_contract(find_contract(options.robot))
        window = file.model.history_length
        load = Load(options.batches, options.batch_size, window, options.workers, options.step_ms)
        results = []
        for source in training.datasets:
            results.append(
                measure(source, contract, file.model, load, options.long, options.cache, options.lerobot_python)
            )
            show(console, results[-1])
        if options.output:
            with results_at(options.output):
                write_json(options.output, results)
    except VlaError as problem:
        refuse(console, problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

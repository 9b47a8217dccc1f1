"""Episodes of any format in, a LeRobot data set v3.0 out: in parts, of which none is done twice after an interruption.

OUTPUT.partial grows by a part (some episodes: one data file and one video file per camera) at a time, and becomes
OUTPUT when all is written.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla_policy.errors import ConfigError, DataError
from vla_training.datasets.conversion import Done, Skipped, left_out_by
from vla_training.datasets.lerobot.layout import INDEX_COLUMNS
from vla_training.datasets.lerobot.metadata import Feature, nested, write_json, write_table
from vla_training.datasets.lerobot.rows import as_array, reading
from vla_training.datasets.lerobot.writer import Shard, ShardWriter, WrittenEpisode, finalize
from vla_training.datasets.source import EpisodeSource

PART_FRAMES = 5000  # lost at most, for each worker, when the conversion is interrupted
BLOCK_FRAMES = 64  # decoded at a time
BYTES_PER_PIXEL = 0.6  # of H.264 at the writer's quality, on the safe side
PARTS = "parts"  # folder of the columns and episodes of finished parts
SETTINGS = "conversion.json"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is to be done.

    features: names in the new data set. published: the same names -> those in `source`. rate_hz: of the new frames.
    """

    source: EpisodeSource
    output: Path
    features: Mapping[str, Feature]
    published: Mapping[str, str]
    rate_hz: float
    skip_bad: bool

    @property
    def partial(self) -> Path:
        """Where it grows."""
        return self.output.with_name(self.output.name + ".partial")

    def parts(self) -> list[range]:
        """Episodes of each part, of about `PART_FRAMES` frames."""
        ends, frames = [0], 0
        for episode, info in enumerate(self.source.episodes, 1):
            frames += info.length
            if frames >= PART_FRAMES or episode == len(self.source.episodes):
                ends.append(episode)
                frames = 0
        return [range(low, high) for low, high in zip(ends, ends[1:], strict=False)]


def plan_conversion(
    source: EpisodeSource, output: Path, rate_hz: float | None = None, skip_bad: bool = False
) -> Conversion:
    """Choose names and sizes. rate_hz: for data that does not say its own.

    Raises: ConfigError where `output` is there, or the rate is told by nobody or twice; DataError for a bad image.
    """
    if output.exists():
        raise ConfigError(f"{output}: already there; expected a new folder; delete it or choose another")
    rates = {rate for rate in (rate_hz, source.spec.rate_hz) if rate is not None}
    if len(rates) != 1:
        told = (
            "nothing tells it; give --rate-hz"
            if not rates
            else f"--rate-hz is {rate_hz:g}, the data's is {source.spec.rate_hz:g}"
        )
        raise ConfigError(f"{source.root}: frames a second: {told}")
    published = {
        _renamed(name): name for name in (*source.spec.cameras, *source.spec.columns) if name not in INDEX_COLUMNS
    }
    features = {_renamed(name): Feature("video", (*_size(source, name), 3)) for name in source.spec.cameras}
    for name, column in source.spec.columns.items():
        if name not in INDEX_COLUMNS:
            dtype = "string" if column.dtype.startswith(("str", "<U", "object")) else column.dtype
            features[_renamed(name)] = Feature(dtype, column.shape or (1,), column.names)
    return Conversion(source, output, features, published, rates.pop(), skip_bad)


def convert(
    plan: Conversion, workers: int, command: Mapping[str, str], on_part: Callable[[int], None] = lambda frames: None
) -> Done:
    """Do it, or go on with what an interrupted run left. on_part: told the frames of each part that is done.

    command: what to note of how this came about. Raises: DataError naming file and episode for bad ones unless
    `skip_bad`, and where the disk is too small; ConfigError where OUTPUT.partial is of another conversion.
    """
    parts = plan.parts()
    resumed = _begin(plan)
    for number in resumed:
        on_part(_frames(plan, parts[number]))
    open_parts = [number for number in range(len(parts)) if number not in resumed]
    _check_space(plan, sum(_frames(plan, parts[number]) for number in open_parts))
    for number in _done(plan, parts, open_parts, workers):
        on_part(_frames(plan, parts[number]))
    with _room(plan):
        return _finish(plan, range(len(parts)), command, len(resumed))


def _finish(plan: Conversion, numbers: range, command: Mapping[str, str], resumed: int) -> Done:
    """Number the parts through, write the meta data, and give the folder its name."""
    skipped = left_out_by(plan.source)
    skipped += [Skipped(**skip) for number in numbers for skip in _read_part(plan, number)["skipped"]]
    spec = plan.source.spec
    shards = (_load_shard(plan, number) for number in numbers)
    finalize(plan.partial, shards, plan.features, plan.rate_hz, spec.format, spec.recorded_with)
    facts = {"source": str(plan.source.root), "format": spec.format, "fingerprint": spec.fingerprint, **command}
    write_json({**facts, "skipped": [asdict(skip) for skip in skipped]}, plan.partial / "meta/conversion.json")
    info = json.loads((plan.partial / "meta/info.json").read_text(encoding="utf-8"))
    os.rename(plan.partial, plan.output)
    shutil.rmtree(plan.output / PARTS)
    (plan.output / SETTINGS).unlink()
    report = plan.output / "meta/conversion.json"
    return Done(info["total_episodes"], info["total_frames"], tuple(skipped), resumed, "parts", report)


@contextmanager
def _room(plan: Conversion) -> Iterator[None]:
    """Say what a disk that cannot be written means. Raises: DataError."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or problem
        raise DataError(f"{plan.partial}: {reason}; make room and run the same command again to go on") from problem


def _begin(plan: Conversion) -> list[int]:
    """Make OUTPUT.partial, or see that it is of the same conversion. Returns the parts that are done."""
    settings: dict[str, Any] = {
        "fingerprint": plan.source.spec.fingerprint,
        "rate_hz": plan.rate_hz,
        "part_frames": PART_FRAMES,
        "features": {name: [feature.dtype, list(feature.shape)] for name, feature in plan.features.items()},
    }
    path = plan.partial / SETTINGS
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != settings:
            raise ConfigError(f"{plan.partial}: begun with other data or options; delete it, or choose another output")
    elif plan.partial.exists():
        raise ConfigError(f"{plan.partial}: already there, and no conversion of this program; delete it")
    else:
        write_json(settings, path)
    return [number for number in range(len(plan.parts())) if _part_path(plan, number).is_file()]


def _done(plan: Conversion, parts: Sequence[range], numbers: Sequence[int], workers: int) -> Iterator[int]:
    """Numbers of parts, as they are finished."""
    if workers == 1 or len(numbers) < 2:
        for number in numbers:
            _convert_part(plan, number, parts[number])
            yield number
        return
    with ProcessPoolExecutor(min(workers, len(numbers)), get_context("spawn"), _begin_worker, (plan,)) as pool:
        futures = {pool.submit(_convert_in_worker, number, parts[number]): number for number in numbers}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        finally:
            pool.shutdown(cancel_futures=True)


_plan_of_worker: Conversion | None = None


def _begin_worker(plan: Conversion) -> None:
    """Sent once: a plan knows every episode of its source. Ctrl-C is the parent's, which lets parts be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    global _plan_of_worker
    _plan_of_worker = plan


def _convert_in_worker(number: int, episodes: range) -> None:
    assert _plan_of_worker is not None
    _convert_part(_plan_of_worker, number, episodes)


def _convert_part(plan: Conversion, number: int, episodes: range) -> None:
    writer = ShardWriter(plan.partial, number, plan.features, plan.rate_hz)
    skipped: list[Skipped] = []
    try:
        with _room(plan):
            for episode in episodes:
                try:
                    _convert_episode(plan, writer, episode)
                except DataError as problem:
                    if not plan.skip_bad:
                        raise
                    skipped.append(Skipped(plan.source.episodes[episode].key, str(problem)))
            _save_part(plan, number, writer.close(), skipped)
    finally:
        writer.abandon()


def _convert_episode(plan: Conversion, writer: ShardWriter, episode: int) -> None:
    """Check an episode's columns and stream its images. Raises: DataError naming it."""
    info = plan.source.episodes[episode]
    small = {name: feature for name, feature in plan.features.items() if feature.dtype != "video"}
    found = plan.source.columns(episode, [plan.published[name] for name in small])
    columns: dict[str, Any] = {}
    for name, feature in small.items():
        values = found[plan.published[name]]
        if len(values) != info.length or not len(values):
            raise DataError(
                f"{info.key}: column '{plan.published[name]}' has {len(values)} frames, expected {info.length}"
            )
        finite = np.isfinite(values).reshape(len(values), -1).all(1) if values.dtype.kind == "f" else np.True_
        if not np.all(finite):
            raise DataError(
                f"{info.key}: column '{plan.published[name]}' is not finite at frame {int(np.argmin(finite))}"
            )
        columns[name] = values.reshape(len(values), *feature.shape)
    for name in plan.features.keys() - small.keys():
        columns[name] = _frame_stream(plan.source, episode, plan.published[name])
    try:
        writer.add_episode(
            columns, info.instructions, {"task_name": info.task, **info.extra} if info.task else info.extra
        )
    except (DataError, ConfigError) as problem:
        raise DataError(f"{problem} ({info.key})" if info.key not in str(problem) else str(problem)) from problem


def _frame_stream(source: EpisodeSource, episode: int, camera: str) -> Iterator[NDArray[np.uint8]]:
    length = source.episodes[episode].length
    for start in range(0, length, BLOCK_FRAMES):
        yield from source.images(episode, camera, np.arange(start, min(start + BLOCK_FRAMES, length)))


def _renamed(name: str) -> str:
    """LeRobot's names hold no slash."""
    return name.replace("/", ".")


def _size(source: EpisodeSource, camera: str) -> tuple[int, int]:
    """Height and width; of the first image that can be read where they were not published."""
    height, width = source.spec.cameras[camera]
    if height and width:
        return height, width
    problem: DataError | None = None
    for episode, info in enumerate(source.episodes):
        try:
            if info.length:
                image = source.images(episode, camera, np.zeros(1, np.int64))[0]
                return image.shape[0], image.shape[1]
        except DataError as found:
            problem = problem or found
    raise problem or DataError(f"{source.root}: no image of '{camera}' in it")


def _frames(plan: Conversion, episodes: range) -> int:
    return sum(plan.source.episodes[episode].length for episode in episodes)


def _check_space(plan: Conversion, frames: int) -> None:
    per_frame = sum(
        np.prod(feature.shape[:2]) * BYTES_PER_PIXEL if feature.dtype == "video" else 8 * np.prod(feature.shape)
        for feature in plan.features.values()
    )
    need, free = int(per_frame * frames), shutil.disk_usage(plan.partial).free
    if need > free:
        sizes = f"needs about {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        raise DataError(f"{plan.output}: {sizes}; make room and run the same command again, or choose another output")


def _part_path(plan: Conversion, number: int) -> Path:
    return plan.partial / PARTS / f"{number:06d}.json"


def _read_part(plan: Conversion, number: int) -> dict[str, Any]:
    return json.loads(_part_path(plan, number).read_text(encoding="utf-8"))


def _save_part(plan: Conversion, number: int, shard: Shard, skipped: Sequence[Skipped]) -> None:
    """The columns first: the JSON says that the part is done."""
    path = _part_path(plan, number)
    if shard.episodes:
        columns = {key: nested(values) for key, values in shard.columns.items()}
        write_table(columns, path.with_suffix(".parquet"))
    listed = [asdict(episode) for episode in shard.episodes]
    write_json({"episodes": listed, "skipped": [asdict(skip) for skip in skipped]}, path)


def _load_shard(plan: Conversion, number: int) -> Shard:
    episodes = [
        WrittenEpisode(**{**episode, "instructions": tuple(episode["instructions"])})
        for episode in _read_part(plan, number)["episodes"]
    ]
    if not episodes:
        return Shard(number, {}, [])
    path = _part_path(plan, number).with_suffix(".parquet")
    with reading(path):
        table = pq.read_table(path)
    columns = {name: as_array(table.column(name), plan.features[name].shape) for name in table.column_names}
    return Shard(number, columns, episodes)

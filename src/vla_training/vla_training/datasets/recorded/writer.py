"""A data set of any format in, recorded bags of a robot contract out, one an episode: to be replayed, or read again.

Each bag is what the recorder leaves: messages, `metadata.yaml`, and `episode.json` last. Bags that are whole are not
written again when the same conversion is repeated. Written without ROS.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, DataError
from vla_policy.model.config import ModelConfig
from vla_policy.recording import EPISODE_FILE, EpisodeRecord, TopicRecord, contract_hash, write_episode
from vla_training.datasets.config import Source
from vla_training.datasets.conversion import Done, Skipped, left_out_by
from vla_training.datasets.lerobot.metadata import write_json
from vla_training.datasets.mapping import ContractMapping
from vla_training.datasets.recorded.frames import (
    START_NS,
    EpisodeFrames,
    Timed,
    command_messages,
    image_message,
    state_messages,
    stop_ns,
)
from vla_training.datasets.recorded.messages import types
from vla_training.datasets.resolve import rate_of, resolve_cameras, resolve_mapping
from vla_training.datasets.rows import rates_of
from vla_training.datasets.source import EpisodeInfo, EpisodeSource

BLOCK_FRAMES = 32  # images decoded at a time
BAG_VERSION = 9  # of metadata.yaml
SETTINGS = "conversion.json"


@dataclass(frozen=True, slots=True)
class BagPlan:
    """What is to be written. cameras: of the contract -> of the data."""

    data: EpisodeSource
    output: Path
    contract: RobotContract
    mapping: ContractMapping
    cameras: Mapping[str, str]
    skip_bad: bool

    def folder(self, episode: int) -> Path:
        """Where an episode's bag goes."""
        return self.output / f"episode_{episode:06d}"


def plan_bags(source: Source, data: EpisodeSource, contract: RobotContract, output: Path,
              skip_bad: bool = False) -> BagPlan:
    """Hold the data against the contract. source: what is said of it.

    Raises: DataError where the data is not the contract's, ConfigError where `output` holds something else.
    """
    # The whole of what the robot tells is wanted, as by a model that feels every joint and looks once a frame.
    model = ModelConfig(cameras=tuple(contract.cameras), proprioception_joints=contract.joints.names)
    mapping = resolve_mapping(source, data, contract, model)
    rows = mapping.rows_per_frame
    rates_of(source.path, rate_of(source, data), rows, False, contract, model.model_copy(update={"execute_rows": rows}))
    plan = BagPlan(data, output, contract, mapping, resolve_cameras(source, data, contract, model), skip_bad)
    _begin(plan)
    return plan


def write_bags(plan: BagPlan, workers: int, command: Mapping[str, str],
               on_episode: Callable[[int], None] = lambda frames: None) -> Done:
    """Write what is not there yet. on_episode: told the frames of each one that is done. command: what to note of how
    this came about.

    Raises: DataError naming the episode for one that cannot be written, unless the plan skips those.
    """
    episodes = range(len(plan.data.episodes))
    there = {number for number in episodes if (plan.folder(number) / EPISODE_FILE).is_file()}
    skipped = left_out_by(plan.data)
    for number, problem in _written(plan, [number for number in episodes if number not in there], workers):
        info = plan.data.episodes[number]
        on_episode(info.length)
        if problem is not None:
            skipped.append(Skipped(info.key, str(problem)))
    whole = [number for number in episodes if (plan.folder(number) / EPISODE_FILE).is_file()]
    frames = sum(plan.data.episodes[number].length for number in whole)
    report = plan.output / SETTINGS
    write_json({**_settings(plan), **command, "skipped": [asdict(one) for one in skipped]}, report)
    return Done(len(whole), frames, tuple(skipped), len(there), "episodes", report)


def write_bag(plan: BagPlan, number: int) -> None:
    """Write one episode's bag. Raises: DataError naming the episode."""
    info, folder, store = plan.data.episodes[number], plan.folder(number), types()
    if not any(text.strip() for text in info.instructions):
        raise DataError(f"{info.key}: got no instruction, expected what the robot was to do; a recording needs one")
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted conversion
    frames, counts, kinds = _frames(plan, number), Counter(), {}
    with Writer(folder, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for received_ns, topic, kind, msg in _messages(plan, number, frames):
            if topic not in connections:
                connections[topic], kinds[topic] = writer.add_connection(topic, kind, typestore=store), kind
            writer.write(connections[topic], received_ns, store.serialize_cdr(msg, kind))
            counts[topic] += 1
    write_episode(folder, _record(plan.contract, info, stop_ns(frames, plan.contract), counts, kinds))


def _messages(plan: BagPlan, number: int, frames: EpisodeFrames) -> Iterator[Timed]:
    """All messages of an episode, in the order of their arrival; a frame's command comes after what was seen."""
    contract, length = plan.contract, plan.data.episodes[number].length
    for first in range(0, length, BLOCK_FRAMES):
        block = np.arange(first, min(first + BLOCK_FRAMES, length))
        views = {name: plan.data.images(number, camera, block) for name, camera in plan.cameras.items()}
        for place, frame in enumerate(block.tolist()):
            yield from state_messages(frames, contract, frame)
            for name, images in views.items() if not (frame and frames.held[frame]) else ():
                yield image_message(frames, contract, frame, name, images[place])
            yield from command_messages(frames, contract, frame)


def _frames(plan: BagPlan, number: int) -> EpisodeFrames:
    data, info = plan.data, plan.data.episodes[number]
    columns = data.columns(number, plan.mapping.columns)
    actions = plan.mapping.episode(columns, info.key).actions
    marks = {name: np.zeros(info.length, np.bool_) for name in ("observation.held", "intervention")}
    marks |= data.columns(number, [name for name in marks if name in data.spec.columns])
    return EpisodeFrames(np.asarray(actions.reshape(-1, actions.shape[-1]), np.float64),
                         plan.mapping.observations(columns, info.key),
                         marks["observation.held"].reshape(-1), marks["intervention"].reshape(-1))


def _record(contract: RobotContract, info: EpisodeInfo, stopped_ns: int, counts: Mapping[str, int],
            kinds: Mapping[str, str]) -> EpisodeRecord:
    told, seconds = info.extra, (stopped_ns - START_NS) / 1e9
    fields = EpisodeRecord.model_fields
    driver, outcome = (told.get(name) if told.get(name) in get_args(fields[name].annotation) else default
                       for name, default in (("driver", "script"), ("outcome", "unknown")))
    topics = {topic: TopicRecord(type=kinds[topic], messages=count, rate_hz=round(count / seconds, 3))
              for topic, count in counts.items()}
    seed = told.get("seed")
    return EpisodeRecord(
        contract=contract, contract_hash=contract_hash(contract), driver=driver, outcome=outcome, topics=topics,
        instruction=next(text for text in info.instructions if text.strip()), operator=str(told.get("operator") or ""),
        task=info.task, seed=None if seed is None or seed != seed else int(seed), start_ns=START_NS, stop_ns=stopped_ns,
        note=f"written from {info.key}")


def _begin(plan: BagPlan) -> None:
    """Make the folder, or see that it is of the same conversion. Raises: ConfigError."""
    path = plan.output / SETTINGS
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if any(found.get(name) != value for name, value in _settings(plan).items()):
            raise ConfigError(f"{plan.output}: begun with other data or another contract; delete it, or choose another "
                              "output")
    elif plan.output.exists() and any(plan.output.iterdir()):
        raise ConfigError(f"{plan.output}: already there; expected a new folder; delete it or choose another")
    else:
        plan.output.mkdir(parents=True, exist_ok=True)
        write_json(_settings(plan), path)


def _settings(plan: BagPlan) -> dict[str, Any]:
    return {"source": str(plan.data.root), "fingerprint": plan.data.spec.fingerprint, "mapping": plan.mapping.key,
            "contract": contract_hash(plan.contract)}


def _written(plan: BagPlan, numbers: list[int], workers: int) -> Iterator[tuple[int, DataError | None]]:
    """Numbers of episodes as they are done, with what kept one from being written."""
    if workers == 1 or len(numbers) < 2:
        for number in numbers:
            yield number, _tried(plan, number)
        return
    with ProcessPoolExecutor(min(workers, len(numbers)), get_context("spawn")) as pool:
        futures = {pool.submit(_tried, plan, number): number for number in numbers}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _tried(plan: BagPlan, number: int) -> DataError | None:
    try:
        write_bag(plan, number)
    except DataError as problem:
        shutil.rmtree(plan.folder(number), ignore_errors=True)
        if not plan.skip_bad:
            raise
        return problem
    except OSError as problem:
        raise DataError(f"{plan.folder(number)}: {problem.strerror or problem}; make room and run the same command "
                        "again to go on") from problem
    return None

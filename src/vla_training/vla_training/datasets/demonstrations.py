"""Datasets in, batches of windows out: W frames a policy period apart, each with the K rows that follow.

The batch of a step depends on the seed and the step alone, so a resumed run sees exactly what an
uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, nearest
from vla_policy.model.config import ModelConfig
from vla_policy.observation.proprioception import proprioception
from vla_policy.types import Observation, Pose
from vla_training.config import Source
from vla_training.datasets.frames import cached_frames
from vla_training.datasets.lerobot import Episode, LeRobotDataset

EDGE_FRAMES = (
    2  # starts drawn this far outside are moved in, so that first and last frames are seen often enough
)


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """All frames of some datasets, in memory except the images.

    images: one memory map (N_i, V, S, S, 3) per dataset. state: float32 (N, P), not normalised, P = 0 for a model
    without proprioception.
    actions: float32 (N * R, A), contract units, R rows a frame. place: float32 (N, 3), m, or None.
    first, stop: int (E,), frames of each episode. task: int (E,), index into `instructions`. stride: frames
    per policy period.
    """

    images: tuple[NDArray[np.uint8], ...]
    state: NDArray[np.float32]
    actions: NDArray[np.float32]
    rows_per_frame: int
    place: NDArray[np.float32] | None
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    instruction: NDArray[np.int64]
    instructions: tuple[str, ...]
    task_names: tuple[str, ...]
    stride: int


def load_demonstrations(
    sources: Sequence[Source], contract: RobotContract, config: ModelConfig
) -> Demonstrations:
    """Read and join datasets. Raises: ConfigError where rates, columns or tasks do not fit the contract,
    model or sources.
    """
    datasets = [LeRobotDataset(source.path) for source in sources]
    rows_per_frame = {_rows_per_frame(dataset, contract) for dataset in datasets}
    if len(rows_per_frame) != 1:
        raise ConfigError(
            f"datasets {[s.path for s in sources]}: got {sorted(rows_per_frame)} action rows a frame, "
            "expected the same for all"
        )
    rows = rows_per_frame.pop()
    if config.execute_rows % rows:
        raise ConfigError(
            f"the model steps every {config.execute_rows} rows, the data has a frame every {rows} rows; "
            "expected a divisor"
        )
    offsets = np.cumsum([0] + [len(d) for d in datasets])
    episodes = [
        (e, offset)
        for source, d, offset in zip(sources, datasets, offsets, strict=False)
        for e in _chosen_episodes(source, d)
    ]
    instructions = tuple(sorted({e.task for e, _ in episodes}))
    index = {text: i for i, text in enumerate(instructions)}
    places = [
        d.column("observation.target_position")
        for d in datasets
        if "observation.target_position" in d.features
    ]
    return Demonstrations(
        images=tuple(cached_frames(d, config.cameras, config.image_size) for d in datasets),
        state=np.concatenate([_states(d, contract, config) for d in datasets]),
        actions=np.concatenate([d.column("action").reshape(len(d) * rows, -1) for d in datasets]),
        rows_per_frame=rows,
        place=np.concatenate(places) if len(places) == len(datasets) else None,
        first=np.array([e.start + o for e, o in episodes]),
        stop=np.array([e.stop + o for e, o in episodes]),
        instruction=np.array([index[e.task] for e, _ in episodes]),
        instructions=instructions,
        task_names=tuple(_task_name(e) for e, _ in episodes),
        stride=config.execute_rows // rows,
    )


@dataclass(frozen=True, slots=True)
class WindowIndex:
    """Frames of B windows, (B, W): row numbers (padding repeats the last frame), which are real, which
    actions are real.

    episode: (B,). rows: int (B, W, K), rows of `actions`. rows_valid: bool (B, W, K).
    """

    episode: NDArray[np.int64]
    frames: NDArray[np.int64]
    valid: NDArray[np.bool_]
    rows: NDArray[np.int64]
    rows_valid: NDArray[np.bool_]


def draw_windows(
    data: Demonstrations,
    episodes: NDArray[np.int64],
    count: int,
    window: int,
    chunk: int,
    rng: np.random.Generator,
) -> WindowIndex:
    """Draw `count` windows from `episodes`, each frame about equally likely."""
    length = (data.stop - data.first)[episodes].astype(np.float64)
    episode = rng.choice(episodes, count, p=length / length.sum())
    last_start = np.maximum(data.stop[episode] - data.first[episode] - 1 - (window - 1) * data.stride, 0)
    edge = EDGE_FRAMES if window > 1 else 0
    start = np.floor(rng.uniform(-edge, last_start + edge + 1)).astype(np.int64)
    return index_windows(data, episode, np.clip(start, 0, last_start), window, chunk)


def index_windows(
    data: Demonstrations, episode: NDArray[np.int64], start: NDArray[np.int64], window: int, chunk: int
) -> WindowIndex:
    """The windows that begin `start` frames into `episode`; frames past the end are padding at the window's
    end.
    """
    first, stop = data.first[episode][:, None], data.stop[episode][:, None]
    frames = first + start[:, None] + np.arange(window) * data.stride
    valid = frames < stop
    frames = np.minimum(frames, stop - 1)
    rows = frames[..., None] * data.rows_per_frame + np.arange(chunk)
    end = stop[..., None] * data.rows_per_frame
    return WindowIndex(episode, frames, valid, np.minimum(rows, end - 1), (rows < end) & valid[..., None])


def gather_images(data: Demonstrations, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Images of the frames (B, W) -> uint8 (B, W, V, S, S, 3), a fresh array."""
    if len(data.images) == 1:
        return data.images[0][frames]
    offsets = np.cumsum([0] + [len(images) for images in data.images])
    out = np.empty((*frames.shape, *data.images[0].shape[1:]), np.uint8)
    for images, low, high in zip(data.images, offsets, offsets[1:], strict=False):
        here = (frames >= low) & (frames < high)
        out[here] = images[frames[here] - low]
    return out


def _chosen_episodes(source: Source, dataset: LeRobotDataset) -> list[Episode]:
    known = {_task_name(episode) for episode in dataset.episodes}
    for name in source.tasks:
        if name not in known:
            raise ConfigError(f"{source.path}: no task '{name}' in it; {nearest(name, sorted(known))}")
    return [
        episode for episode in dataset.episodes if not source.tasks or _task_name(episode) in source.tasks
    ]


def _task_name(episode: Episode) -> str:
    return str(episode.extra.get("task_name", episode.task))


def _rows_per_frame(dataset: LeRobotDataset, contract: RobotContract) -> int:
    shape, columns = dataset.features["action"].shape, len(contract.action_names)
    if shape[-1] != columns:
        raise ConfigError(
            f"{dataset.root}: action has {shape[-1]} columns, the contract has {columns} "
            f"({', '.join(contract.action_names)})"
        )
    rows = shape[0] if len(shape) == 2 else 1
    if abs(dataset.fps * rows - contract.action.rate_hz) > 1e-6:
        raise ConfigError(
            f"{dataset.root}: {dataset.fps:g} frames/s with {rows} action rows each, "
            f"the contract's rate is {contract.action.rate_hz:g} rows/s"
        )
    return rows


def _states(dataset: LeRobotDataset, contract: RobotContract, config: ModelConfig) -> NDArray[np.float32]:
    """The model's state vector of every frame, built by the function that serves the policy."""
    if not config.proprioception:
        return np.empty((len(dataset), 0), np.float32)
    joints = dataset.column("observation.state").astype(np.float64)
    poses = dataset.column("observation.pose").astype(np.float64) if contract.pose else [None] * len(joints)
    return np.stack(
        [
            proprioception(
                contract,
                Observation(0, {}, row, None if pose is None else Pose(pose[:3], pose[3:])),
                config.proprioception_joints,
            )
            for row, pose in zip(joints, poses, strict=True)
        ]
    )

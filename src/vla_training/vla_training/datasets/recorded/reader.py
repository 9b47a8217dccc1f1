"""A folder of recorded episodes in, their columns and single images out, as the policy node would have seen them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.recorded_rows import action_rows, covered
from vla_policy.contract import RobotContract
from vla_policy.errors import DataError, ObservationError, nearest
from vla_policy.messages import image_to_array
from vla_policy.recorded_bag import BagImages, find_file
from vla_policy.recording import EPISODE_FILE, EpisodeRecord, contract_differences, read_episode
from vla_policy.types import NS_PER_S
from vla_training.datasets.index_cache import Arrays, cached_arrays
from vla_training.datasets.mapping import described
from vla_training.datasets.recorded.playback import play
from vla_training.datasets.resolve import IMAGE_PREFIX
from vla_training.datasets.source import Column, EpisodeInfo, EpisodeSource, SourceSpec

POSE_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")
LAYOUT = 2  # of the cached index; counts up when what is computed from a bag changes
_ENDS_BYTES = 65536  # of the file: its summary lies at the end
OUTCOMES = ("success", "unknown")
REMEMBERED = 64  # episodes, some 100 kB each


def open_recorded(root: Path | str, outcomes: Sequence[str] = OUTCOMES) -> RecordedSource:
    """Open a folder of bags, or one bag. See `RecordedSource`."""
    return RecordedSource(Path(root), outcomes)


def check_contract(source: EpisodeSource, contract: RobotContract) -> None:
    """Hold recordings against the contract that is wanted; other data has none. Raises: DataError with what differs."""
    if isinstance(source, RecordedSource):
        different = contract_differences(source.contract, contract)
        if different:
            raise DataError(f"{source.root}: recorded with contract '{source.contract.name}', expected "
                            f"'{contract.name}': {'; '.join(different)}; take the robot that it was recorded with")


class RecordedSource:
    """Bags of one contract, one an episode: an `EpisodeSource` at the rate of the contract's actions.

    Columns: observation.state (joints), observation.pose (base frame), observation.asof (the instant they show [s]),
    observation.held (a sample never came, the last is repeated), action (see `action_rows`), timestamp (even [s]),
    intervention (an operator drives). Cameras: observation.images.<name>. `contract`: what they were recorded with.
    `skipped`: folder -> why it is not used: interrupted, or an outcome not in `outcomes`.
    Raises: DataError naming file and cause for every other episode that cannot be used.
    """

    def __init__(self, root: Path, outcomes: Sequence[str] = OUTCOMES) -> None:
        self.root = root
        self.skipped: dict[str, str] = {}
        bags = [folder for folder in _bag_folders(root) if self._is_finished(folder)]
        records = [(folder, read_episode(folder)) for folder in bags]
        records = [(folder, record) for folder, record in records if self._is_wanted(folder, record, outcomes)]
        if not records:
            why = "; ".join(f"{folder}: {reason}" for folder, reason in self.skipped.items()) or "no bag in it"
            raise DataError(f"{root}: got no episode to use, expected bags with an {EPISODE_FILE}: {why}")
        self.contract = records[0][1].contract
        for folder, record in records:
            _check_same_contract(folder, record.contract, records[0][0], self.contract)
        self._files = [find_file(folder) for folder, _ in records]
        self._prints = [_fingerprint(path) for path in self._files]
        self._recent: OrderedDict[int, Arrays] = OrderedDict()
        self._images = BagImages()
        self.episodes = [_info(self._files[i], record, self._arrays(i)) for i, (_, record) in enumerate(records)]
        self.spec = _spec(self.contract, hashlib.sha256("".join(self._prints).encode()).hexdigest())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": OrderedDict()}

    def columns(self, episode: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Columns (T, *shape) of an episode; see `EpisodeSource`."""
        wanted = list(self.spec.columns) if names is None else list(names)
        for name in wanted:
            if name not in self.spec.columns:
                raise DataError(f"{self.episodes[episode].key}: no column '{name}'; {nearest(name, self.spec.columns)}")
        arrays = self._arrays(episode)
        return {name: arrays[name] for name in wanted}

    def images(self, episode: int, camera: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Only these frames, uint8 (n, H, W, 3), RGB; see `EpisodeSource`. Raises: DataError naming file and frame."""
        key, length = self.episodes[episode].key, self.episodes[episode].length
        if camera not in self.spec.cameras:
            raise DataError(f"{key}: no camera '{camera}'; {nearest(camera, self.spec.cameras)}")
        wanted, order = np.unique(np.asarray(frames, np.int64), return_inverse=True)
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= length:
            raise DataError(f"{key}: got frames {list(frames)}, expected some of 0 to {length - 1}")
        stream, messages = self.contract.cameras[camera.removeprefix(IMAGE_PREFIX)], self._arrays(episode)[camera]
        places = [(int(received_ns), int(stamp_ns)) for received_ns, stamp_ns in messages[wanted]]
        images = []
        for frame, msg in zip(wanted, self._images.read(self._files[episode], stream.topic, places), strict=True):
            try:
                images.append(image_to_array(msg, stream))
            except ObservationError as problem:
                raise DataError(f"{key}: frame {frame}: {problem}") from None
        return np.stack(images)[order]

    def _arrays(self, episode: int) -> Arrays:
        """What was found out about an episode; the last few are remembered."""
        if episode not in self._recent:
            path = self._files[episode]
            name, made = f"recorded-{path.parent.name}", self._prints[episode]
            self._recent[episode] = cached_arrays(self.root, name, made, lambda: _read(path, read_episode(path.parent)))
            while len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)
        self._recent.move_to_end(episode)
        return self._recent[episode]

    def _is_finished(self, folder: Path) -> bool:
        if (folder / EPISODE_FILE).is_file():
            return True
        self.skipped[folder.name] = f"no {EPISODE_FILE}, the recording was interrupted"
        return False

    def _is_wanted(self, folder: Path, record: EpisodeRecord, outcomes: Sequence[str]) -> bool:
        if record.outcome in outcomes:
            return True
        self.skipped[folder.name] = f"outcome {record.outcome}"
        return False


def _bag_folders(root: Path) -> list[Path]:
    """The bag itself, or all bags in a folder."""
    if (root / EPISODE_FILE).exists() or (root / "metadata.yaml").exists():
        return [root]
    marks = ("*/metadata.yaml", "*/*.mcap", f"*/{EPISODE_FILE}")
    return sorted({file.parent for mark in marks for file in root.glob(mark)})


def _read(path: Path, record: EpisodeRecord) -> Arrays:
    """Everything of an episode but its images. Raises: DataError."""
    playback, contract = play(path, record), record.contract
    ticks = playback.ticks[covered([tick.tick_ns for tick in playback.ticks], playback.commands, contract)]
    if not ticks:
        raise DataError(f"{path}: no frame of the episode has a command; record while the robot is driven")
    ticks_ns, asof_ns = np.array([(tick.tick_ns, tick.asof_ns) for tick in ticks], np.int64).T
    try:
        rows = action_rows(ticks_ns, playback.commands, contract)
    except ValueError as problem:
        raise DataError(f"{path}: {problem}") from None
    arrays: Arrays = {
        "timestamp": (ticks_ns - ticks_ns[0]) / NS_PER_S,
        "observation.asof": (asof_ns - ticks_ns[0]) / NS_PER_S,
        "observation.state": np.array([tick.joints for tick in ticks], np.float32),
        "observation.held": np.array([tick.held for tick in ticks]),
        "action": rows.astype(np.float32),
        "intervention": _as_of(ticks_ns, playback.interventions),
    }
    if contract.pose is not None:
        poses = [np.concatenate([tick.pose.position, tick.pose.quaternion]) for tick in ticks]
        arrays["observation.pose"] = np.array(poses, np.float32)
    for name in contract.cameras:
        arrays[IMAGE_PREFIX + name] = np.array([tick.images[name] for tick in ticks], np.int64)
    return arrays


def _as_of(ticks_ns: NDArray[np.int64], changes: Sequence[tuple[int, bool]]) -> NDArray[np.bool_]:
    """The newest value that came until each frame; False before the first."""
    values = np.array([False, *(value for _, value in changes)])
    return values[np.searchsorted([received_ns for received_ns, _ in changes], ticks_ns, side="right")]


def _spec(contract: RobotContract, fingerprint: str) -> SourceSpec:
    names = contract.action_names
    columns = {
        "timestamp": Column("float64", ()),
        "observation.asof": Column("float64", ()),
        "observation.state": Column("float32", (len(contract.joints.names),), contract.joints.names),
        "observation.held": Column("bool", ()),
        "action": Column("float32", (len(names),), names),
        "intervention": Column("bool", ()),
    }
    if contract.pose is not None:
        columns["observation.pose"] = Column("float32", (len(POSE_COLUMNS),), POSE_COLUMNS)
    cameras = {IMAGE_PREFIX + name: (camera.height, camera.width) for name, camera in contract.cameras.items()}
    return SourceSpec("recorded", contract.action.rate_hz, cameras, columns, fingerprint, described(contract))


def _info(path: Path, record: EpisodeRecord, arrays: Arrays) -> EpisodeInfo:
    extra = {"outcome": record.outcome, "operator": record.operator, "driver": record.driver, "seed": record.seed,
             "held_frames": int(arrays["observation.held"].sum()),
             "dropped_messages": sum(topic.dropped for topic in record.topics.values())}
    return EpisodeInfo(str(path), len(arrays["timestamp"]), (record.instruction,), record.task, extra)


def _check_same_contract(folder: Path, contract: RobotContract, first_folder: Path, first: RobotContract) -> None:
    """Raises: DataError naming what of the contract gives other data."""
    different = contract_differences(contract, first)
    if different:
        raise DataError(f"{folder}: its contract is not that of {first_folder}: {'; '.join(different)}; keep the bags "
                        "of two contracts in two folders")


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(f"{LAYOUT} {size}".encode() + (path.parent / EPISODE_FILE).read_bytes())
    with path.open("rb") as file:
        digest.update(file.read(_ENDS_BYTES))
        file.seek(max(0, size - _ENDS_BYTES))
        digest.update(file.read())
    return digest.hexdigest()

"""The folder of an RLDS data set in, its episodes' columns and single decoded frames out, without TensorFlow."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.errors import DataError, ObservationError, nearest
from vla_policy.observation.images import decode_compressed
from vla_training.datasets.rlds.example import (
    Buffer,
    ExampleError,
    Kind,
    Values,
    byte_strings,
    floats,
    integers,
    locate,
)
from vla_training.datasets.rlds.features import STEPS, Feature
from vla_training.datasets.rlds.index import FEATURES, INFO, read_index, read_split
from vla_training.datasets.rlds.tfrecord import map_file
from vla_training.datasets.source import Column, SourceSpec


def open_rlds(root: Path | str, split: str = "train", check_data: bool = True) -> RldsSource:
    """Open NAME/VERSION, or NAME where it holds one version. See `RldsSource`."""
    root = Path(root)
    if not (root / INFO).exists() and not (root / FEATURES).exists():
        versions = sorted(file.parent.name for file in root.glob(f"*/{FEATURES}"))
        if len(versions) > 1:
            raise DataError(f"{root}: got the versions {', '.join(versions)}, expected one; name the folder of one")
        root = root / versions[0] if versions else root
    return RldsSource(root, split, check_data)


class RldsSource:
    """One split of an RLDS data set as tfds writes it: the `EpisodeSource` of Bridge, RT-1, all of Open X-Embodiment.

    The first opening reads all files once: it notes where episodes lie and, with `check_data`, holds every record
    against its checksum; later ones read the cached index. Columns and cameras bear the names below `steps`:
    `observation/image_0`, `action`, `action/world_vector`. Ragged lists, text and depth are no columns. Rates are not
    published: `rate_hz` is None.
    """

    def __init__(self, root: Path, split: str = "train", check_data: bool = True) -> None:
        self.root = root
        read = read_split(root, split)
        self._features = read.features
        self.episodes, self._places = read_index(root, read, check_data)
        self.spec = SourceSpec(
            "rlds",
            None,
            {f.name: (max(f.shape[0], 0), max(f.shape[1], 0)) for f in read.features.values() if f.is_camera},
            {f.name: Column(f.dtype, f.shape) for f in read.features.values() if f.is_column},
            read.fingerprint,
        )
        self._located: tuple[int, Buffer, dict[str, Values]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_located": None}

    def columns(self, episode: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Columns (T, *shape) of an episode; see `EpisodeSource`. Raises: DataError naming file, record and column."""
        found = {}
        for name in self.spec.columns if names is None else names:
            if name not in self.spec.columns:
                raise DataError(f"{self.root}: column '{name}': {self._why_not(name, self.spec.columns)}")
            example, values = self._locate(episode, name)
            try:
                found[name] = _decode(self._features[STEPS + name], example, values, self.episodes[episode].length)
            except (ExampleError, ValueError, zlib.error) as problem:
                raise DataError(f"{self.episodes[episode].key}: column '{name}': {problem}") from None
        return found

    def images(self, episode: int, camera: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Only these frames, uint8 (n, H, W, 3), RGB; see `EpisodeSource`.

        Raises: DataError naming file, record and frame.
        """
        if camera not in self.spec.cameras:
            raise DataError(f"{self.root}: camera '{camera}': {self._why_not(camera, self.spec.cameras)}")
        key, length = self.episodes[episode].key, self.episodes[episode].length
        example, values = self._locate(episode, camera)
        if values.kind is not Kind.BYTES or len(values.spans) != length:
            got = f"{len(values.spans)} {values.kind.name.lower()}"
            raise DataError(f"{key}: '{camera}': got {got}, expected {length} images")
        wanted, order = np.unique(np.asarray(frames, np.int64), return_inverse=True)
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= length:
            raise DataError(f"{key}: got frames {list(frames)}, expected some of 0 to {length - 1}")
        decoded = []
        for frame in wanted:
            try:
                decoded.append(decode_compressed(example[slice(*values.spans[frame])]))
            except ObservationError as problem:
                raise DataError(f"{key}: '{camera}', frame {frame}: {problem}") from None
        if len({image.shape for image in decoded}) > 1:
            raise DataError(f"{key}: '{camera}': its frames differ in size; expected one size within an episode")
        return np.stack(decoded)[order]

    def _locate(self, episode: int, name: str) -> tuple[Buffer, Values]:
        """The Example of an episode, and where one of its features lies. The last episode is remembered."""
        if self._located is None or self._located[0] != episode:
            place = self._places[episode]
            example = map_file(place.shard)[place.start : place.start + place.length]
            try:
                self._located = episode, example, locate(example)
            except ExampleError as problem:
                raise DataError(f"{self.episodes[episode].key}: {problem}; the file changed since then") from None
        _, example, values = self._located
        if STEPS + name not in values:
            raise DataError(f"{self.episodes[episode].key}: '{name}' is missing, though {FEATURES} promises it")
        return example, values[STEPS + name]

    def _why_not(self, name: str, offered: Sequence[str]) -> str:
        feature = self._features.get(STEPS + name)
        if feature is None:
            return f"there is none; {nearest(name, offered)}"
        form = "x".join(map(str, feature.shape)) or "single"
        return f"got a feature of kind {feature.kind} ({form} {feature.dtype}); known: {', '.join(offered) or 'none'}"


def _decode(feature: Feature, example: Buffer, values: Values, length: int) -> NDArray[Any]:
    """A column's values, (T, *shape). Raises: ExampleError, ValueError, zlib.error."""
    if feature.encoding != "none":
        unpack = zlib.decompress if feature.encoding == "zlib" else bytes
        flat = np.frombuffer(b"".join(unpack(item) for item in byte_strings(example, values)), feature.dtype)
    else:
        flat = floats(example, values) if values.kind is Kind.FLOATS else integers(example, values)
    expected = (length, *feature.shape)
    if flat.size != np.prod(expected):
        raise ValueError(f"got {flat.size} values, expected {'x'.join(map(str, expected))}")
    return flat.reshape(expected).astype(feature.dtype, copy=False)

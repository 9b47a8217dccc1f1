"""A LeRobot data set on disk in, its episodes' columns and single frames out: versions 3.0, 2.1 and 2.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_policy.errors import DataError, nearest
from vla_training.datasets.lerobot.layout import Place, read_layout
from vla_training.datasets.lerobot.rows import RowReader, as_array
from vla_training.datasets.lerobot.video import VideoPool

# A frame counts as the one asked for within this share of the time between two: never the neighbour's.
TOLERANCE_FRAMES = 0.25


class LeRobotSource:
    """The `EpisodeSource` of a LeRobot data set. Raises: DataError where it is none, or a file of it is not there."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        layout = read_layout(self.root)
        self.spec, self.episodes, self._places = layout.spec, layout.episodes, layout.places
        self._rows, self._videos = RowReader(), VideoPool()

    def columns(self, episode: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Small columns (T, *shape) of an episode. Raises: DataError naming file and episode."""
        wanted = list(self.spec.columns) if names is None else list(names)
        for name in wanted:
            if name not in self.spec.columns:
                raise DataError(f"{self._key(episode)}: no column '{name}'; {nearest(name, self.spec.columns)}")
        table = self._read(self._places[episode], [*dict.fromkeys([*wanted, "episode_index"])])
        arrays = {}
        for name in wanted:
            column = self.spec.columns[name]
            try:
                array = as_array(table.column(name), column.shape)
                arrays[name] = array if column.dtype == "str" else array.astype(column.dtype, copy=False)
            except (ValueError, TypeError) as problem:
                raise DataError(
                    f"{self._key(episode)}: column '{name}' is not {column.dtype} of shape {list(column.shape)} "
                    f"in every frame ({problem})"
                ) from problem
        return arrays

    def images(self, episode: int, camera: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames of a camera, uint8 (n, H, W, 3), RGB. Raises: DataError naming file and episode."""
        if camera not in self.spec.cameras:
            raise DataError(f"{self._key(episode)}: no camera '{camera}'; {nearest(camera, self.spec.cameras)}")
        wanted, order = np.unique(np.asarray(frames, np.int64), return_inverse=True)
        length = self.episodes[episode].length
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= length:
            raise DataError(f"{self._key(episode)}: got frames {list(frames)}, expected some of 0 to {length - 1}")
        place = self._places[episode]
        if camera in place.videos:
            images = self._from_video(episode, camera, wanted)
        else:
            table = self._read(place, [camera, "episode_index"]).take(wanted)
            images = [self._decode(episode, camera, item) for item in table.column(camera).to_pylist()]
        if len({image.shape for image in images}) != 1:
            raise DataError(f"{self._key(episode)}: images of '{camera}' differ in size within the episode")
        return np.stack(images)[order]

    def _from_video(self, episode: int, camera: str, frames: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        path, first_s = self._places[episode].videos[camera]
        times_s = first_s + self.columns(episode, ["timestamp"])["timestamp"][frames].astype(np.float64)
        if not np.all(np.diff(times_s) > 0):
            raise DataError(f"{self._key(episode)}: timestamps do not grow from frame to frame")
        try:
            return self._videos.frames(path, times_s, TOLERANCE_FRAMES / self.spec.rate_hz)
        except DataError as problem:
            raise DataError(f"{problem} (episode {self._places[episode].index}, camera '{camera}')") from problem

    def _decode(self, episode: int, camera: str, item: Mapping[str, Any] | bytes | None) -> NDArray[np.uint8]:
        """An image as Hugging Face stores it: {bytes, path}, where one of the two may be missing."""
        data = item.get("bytes") if isinstance(item, Mapping) else item
        path = item.get("path") if isinstance(item, Mapping) else None
        if data is None and path:
            file = self.root / path
            if not file.is_file():
                raise DataError(f"{file}: no such file; it is an image of {self._key(episode)}, camera '{camera}'")
            data = file.read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
        if image is None:
            raise DataError(f"{self._key(episode)}: an image of '{camera}' cannot be decoded; it is cut off or corrupt")
        return image

    def _read(self, place: Place, names: Sequence[str]) -> Any:
        """Rows of an episode, checked to be its own."""
        try:
            table = self._rows.read(place.data, *place.rows, names)
        except DataError as problem:
            raise DataError(f"{problem} (episode {place.index})") from problem
        found = table.column("episode_index").unique().to_pylist()
        if found != [place.index]:
            raise DataError(
                f"{place.data}: rows {place.rows[0]} to {place.rows[1] - 1} are of episodes {found}, "
                f"expected only {place.index}; meta/ and data/ are not of the same recording"
            )
        return table

    def _key(self, episode: int) -> str:
        return self.episodes[episode].key

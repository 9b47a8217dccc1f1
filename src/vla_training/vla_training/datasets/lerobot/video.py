"""Frames in, an H.264 mp4 file out; an mp4 file of any codec in, single frames by their time out. By PyAV."""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vla_policy.errors import DataError

PIXEL_FORMAT = "yuv444p"  # full colour resolution: at policy resolution a block is a few pixels wide
QUALITY_CRF = "12"
KEYFRAME_EVERY = "2"  # as LeRobot does: any frame can be reached quickly
OPEN_VIDEOS = 16  # files that a process keeps open
DECODE_ON_FRAMES = 2  # a key frame no farther ahead is reached faster by decoding than by seeking
# A fork shares its parent's file offsets, so it opens its own; it must not even close those of its parent, for then a
# decoder may wait for threads that only the parent has.
_INHERITED: list[OrderedDict[Path, VideoFile]] = []


class VideoWriter:
    """One growing mp4 file. Frames are uint8 (H, W, 3), RGB."""

    def __init__(self, path: Path, fps: float, height: int, width: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frame_count = 0
        self._container = av.open(str(path), "w")
        self._stream: Any = self._container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1000),
            options={"crf": QUALITY_CRF, "g": KEYFRAME_EVERY, "preset": "veryfast", "threads": "1"},
        )
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXEL_FORMAT

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame."""
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        for packet in self._stream.encode(image):
            self._container.mux(packet)
        self.frame_count += 1

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()

    def discard(self) -> None:
        """Let go of a file that will not be finished: the disk may be full."""
        with suppress(OSError):
            self._container.close()


class VideoFile:
    """An open mp4 file that gives frames by their time. Decodes on one thread: loaders run one process a core."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path))
        if not self._container.streams.video:
            raise DataError(f"{path}: no video in it")
        self._stream: Any = self._container.streams.video[0]
        self._stream.thread_count = 1  # also: no threads that a forked process would miss
        self._seconds = float(self._stream.time_base)
        self._decode_on_s = DECODE_ON_FRAMES / float(self._stream.average_rate or 30)
        entries = self._stream.index_entries
        # The index counts decoding times; frames are shown later than decoded by what makes room for reordering.
        delay = (self._stream.start_time or 0) - entries[0].timestamp if len(entries) else 0
        self._key_dts = [entry.timestamp for entry in entries if entry.is_keyframe]
        self._key_seconds = [(dts + delay) * self._seconds for dts in self._key_dts]
        self._reformatter = VideoReformatter()
        self._decoder: Iterator[Any] = iter(())
        self._ahead: tuple[float, Any] | None = None  # a decoded frame that was not asked for yet

    def frames(self, times_s: NDArray[np.float64], tolerance_s: float) -> Iterator[NDArray[np.uint8]]:
        """Frames (H, W, 3), RGB, shown at these ascending times. Raises: DataError where one is not there."""
        for time_s in times_s:
            frame = self._find(float(time_s), tolerance_s)
            yield self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()

    def close(self) -> None:
        """Give the file back."""
        self._container.close()

    def _find(self, time_s: float, tolerance_s: float) -> Any:
        """Decode on from where the last frame was, or from the last key frame before `time_s` if that is nearer."""
        key = bisect.bisect_right(self._key_seconds, time_s + tolerance_s) - 1
        here = self._ahead[0] if self._ahead else float("inf")
        ahead_of_us = key >= 0 and self._key_seconds[key] > here + self._decode_on_s + tolerance_s
        if here > time_s + tolerance_s or ahead_of_us:
            self._seek(key, time_s)
        while self._ahead is not None and self._ahead[0] < time_s - tolerance_s:
            self._advance()
        if self._ahead is None or self._ahead[0] > time_s + tolerance_s:
            got = "the end" if self._ahead is None else f"one at {self._ahead[0]:.4f} s"
            raise DataError(f"no frame at {time_s:.4f} s (tolerance {tolerance_s:.4f} s), got {got}")
        return self._ahead[1]

    def _seek(self, key: int, time_s: float) -> None:
        target = self._key_dts[key] if key >= 0 else round(time_s / self._seconds)
        self._container.seek(target, stream=self._stream, backward=True)
        self._decoder = self._container.decode(self._stream)
        self._advance()

    def _advance(self) -> None:
        frame = next(self._decoder, None)
        self._ahead = None if frame is None else (frame.pts * self._seconds, frame)


class VideoPool:
    """Paths in, open files out: the most recently used stay open. A pickled or forked copy begins empty."""

    def __init__(self, size: int = OPEN_VIDEOS) -> None:
        self._size = size
        self._process = os.getpid()
        self._files: OrderedDict[Path, VideoFile] = OrderedDict()

    def __reduce__(self) -> tuple[type[VideoPool], tuple[int]]:
        return VideoPool, (self._size,)

    def frames(self, path: Path, times_s: NDArray[np.float64], tolerance_s: float) -> list[NDArray[np.uint8]]:
        """Frames at these ascending times. Raises: DataError naming the file where it or a frame cannot be read."""
        if self._process != os.getpid():
            _INHERITED.append(self._files)
            self._process, self._files = os.getpid(), OrderedDict()
        try:
            file = self._files.pop(path, None) or VideoFile(path)
            frames = list(file.frames(times_s, tolerance_s))
        except FileNotFoundError as problem:
            raise DataError(f"{path}: no such file; download or record it again") from problem
        except av.FFmpegError as problem:
            raise DataError(f"{path}: it cannot be decoded ({problem.strerror}); it is cut off or corrupt") from problem
        except DataError as problem:
            raise DataError(f"{path}: {problem}; the video is cut off or of another recording") from problem
        self._files[path] = file
        while len(self._files) > self._size:
            self._files.popitem(last=False)[1].close()
        return frames

"""Frames in, an mp4 file out, and back: H.264 by PyAV, frame-exact in number and order."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

PIXEL_FORMAT = "yuv444p"  # full colour resolution: at policy resolution a block is a few pixels wide
QUALITY_CRF = "12"
KEYFRAME_EVERY = "2"  # as LeRobot does: any frame can be reached quickly


class VideoWriter:
    """One growing mp4 file. Frames are uint8 (H, W, 3), RGB; H and W must be even."""

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


def read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield every frame of an mp4 as uint8 (H, W, 3), RGB, in order."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")

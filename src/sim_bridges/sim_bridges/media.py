"""Camera images and episode results in; a video with the instruction on it and plots out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from sim_bridges.results import EpisodeResult

BAR_PX = 40  # height of the caption bar
SCALE = 2  # cameras are small; a person sits further away than a network
INK, PAPER = (30, 30, 30), (245, 245, 245)
STAGES_SHOWN = ("image_age", "decode", "preprocess", "model", "postprocess", "publish", "total", "sensor_to_command")


class VideoWriter:
    """An H.264 file that takes RGB frames, uint8 (H, W, 3), all of one size with even sides."""

    def __init__(self, path: Path, rate_hz: float) -> None:
        self._container = av.open(str(path), "w")
        self._rate = max(1, round(rate_hz))
        self._stream: av.VideoStream | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame."""
        if self._stream is None:
            options = {"crf": "20", "preset": "veryfast"}
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()


def compose(images: Mapping[str, NDArray[np.uint8]], caption: str, note: str = "") -> NDArray[np.uint8]:
    """All cameras side by side under a caption bar, uint8 (BAR + SCALE * H, SCALE * sum of W, 3)."""
    enlarged = [cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC) for image in images.values()]
    row = np.hstack(enlarged)
    bar = np.full((BAR_PX, row.shape[1], 3), PAPER, np.uint8)
    cv2.putText(bar, caption, (10, 27), cv2.FONT_HERSHEY_DUPLEX, 0.7, INK, 1, cv2.LINE_AA)
    width = cv2.getTextSize(note, cv2.FONT_HERSHEY_DUPLEX, 0.55, 1)[0][0]
    cv2.putText(bar, note, (row.shape[1] - width - 10, 27), cv2.FONT_HERSHEY_DUPLEX, 0.55, INK, 1, cv2.LINE_AA)
    return np.vstack([bar, row])


class EpisodeFilm:
    """Collects the camera images of one episode by stamp and writes those instants that every camera saw."""

    def __init__(self, writer: VideoWriter, cameras: Sequence[str]) -> None:
        self._writer = writer
        self._cameras = list(cameras)
        self._seen: dict[int, dict[str, NDArray[np.uint8]]] = {}

    def add(self, stamp_ns: int, camera: str, image: NDArray[np.uint8]) -> None:
        """Keep one image."""
        self._seen.setdefault(stamp_ns, {})[camera] = image

    def develop(self, result: EpisodeResult) -> None:
        """Write the episode and forget it; the last image stands still for a moment with the outcome."""
        seen, self._seen = self._seen, {}
        # Between the end of an episode and the next scene a simulator goes on to send pictures of the old one.
        instants = [seen[stamp] for stamp in sorted(seen)
                    if stamp >= result.start_ns and len(seen[stamp]) == len(self._cameras)]
        ordered = [{name: images[name] for name in self._cameras} for images in instants]
        for number, images in enumerate(ordered):
            self._writer.write(compose(images, result.instruction, f"{number} / {len(ordered) - 1}"))
        if ordered:
            still = compose(ordered[-1], result.instruction, "success" if result.success else result.reason.lower())
            for _ in range(10):
                self._writer.write(still)


def plot_commands(result: EpisodeResult, names: Sequence[str], units: Sequence[str], rate_hz: float,
                  path: Path) -> None:
    """Asked and sent commands of one episode, `rate_hz` a second, a panel per value."""
    figure, axes = _figure(len(names))
    seconds = np.arange(len(result.commands)) / rate_hz
    for column, axis in enumerate(axes):
        asked, sent = result.requested[:, column], result.commands[:, column]
        axis.step(seconds, asked, where="post", color="tab:orange", lw=2.5, alpha=0.6, label="asked")
        axis.step(seconds, sent, where="post", color="tab:blue", lw=1.2, label="sent")
        axis.set_ylabel(f"{names[column]} [{units[column]}]")
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper right", ncols=2)
    axes[0].set_title(f"{result.task}, seed {result.seed}: '{result.instruction}', {result.reason.lower()}")
    axes[-1].set_xlabel("time since the first observation [s]")
    figure.savefig(path, dpi=110)


def plot_latencies(results: Sequence[EpisodeResult], path: Path) -> None:
    """Distribution of every stage over all inferences, milliseconds on a logarithmic axis."""
    stages = [s for s in STAGES_SHOWN if any(len(result.latencies_ms.get(s, ())) for result in results)]
    values = [[v for result in results for v in result.latencies_ms.get(stage, ())] for stage in stages]
    rows = np.arange(len(stages))
    ranks = np.array([np.percentile(times, (5, 25, 50, 75, 95)) for times in values]).reshape(-1, 5).T
    figure, (axis,) = _figure(1, height=0.6 * len(stages) + 1.5)
    axis.hlines(rows, ranks[0], ranks[4], color="tab:blue")  # by hand: matplotlib renamed what turns a boxplot
    axis.barh(rows, ranks[3] - ranks[1], left=ranks[1], height=0.5, color="tab:blue", alpha=0.4)
    axis.plot(ranks[2], rows, "|", color="tab:orange", markersize=14, markeredgewidth=2.5)
    axis.set_yticks(rows, [stage.replace("_", " ") for stage in stages])
    axis.invert_yaxis()
    axis.set_xscale("log" if (ranks > 0).any() else "linear")  # no run may have begun
    axis.grid(alpha=0.3, which="both", axis="x")
    axis.set_xlabel("ms (mark: median, box: quartiles, line: 5 % to 95 %)")
    axis.set_title("stage latencies")
    figure.savefig(path, dpi=110)


def plot_chains(chains: Mapping[str, Any], path: Path) -> None:
    """Share of chains with at least 1, 2, ... instructions in a row, as `summarise_chains` gives it."""
    figure, (axis,) = _figure(1, height=3.5)
    rows = chains["in_a_row"]
    counts, rates = [row["instructions"] for row in rows], np.array([row["success_rate"] for row in rows])
    spread = np.abs(np.array([row["interval_95"] for row in rows]).T - rates)
    axis.bar(counts, 100 * rates, yerr=100 * spread, color="tab:blue", alpha=0.6, capsize=4)
    axis.set_xticks(counts)
    axis.set_ylim(0, 105)
    axis.grid(alpha=0.3, axis="y")
    axis.set_xlabel("instructions in a row")
    axis.set_ylabel("chains [%], 95 % interval")
    axis.set_title(f"{chains['chains']} chains, {chains['average_length']:.2f} in a row on average")
    figure.savefig(path, dpi=110)


def _figure(panels: int, height: float | None = None) -> tuple:
    from matplotlib.figure import Figure  # slow to import and of no use without media

    figure = Figure(figsize=(9, height or 1.3 * panels + 1), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)
    return figure, axes[:, 0]

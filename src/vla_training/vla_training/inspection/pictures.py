"""A data set and its survey in, PNG pictures out: histograms of the actions, a sheet of what the cameras saw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_policy.errors import DataError
from vla_training.datasets.source import EpisodeSource
from vla_training.inspection.columns import ColumnTally
from vla_training.inspection.survey import Survey, chosen_episodes, last_word
from vla_training.plots import COLOURS, Axes, picture

BINS = 60
MISSING = "#d5dae1"


@dataclass(frozen=True, slots=True)
class _Strip:
    """A row of a contact sheet; an episode's first camera bears the title. images: None where they are broken."""

    title: str
    camera: str
    frames: NDArray[np.int64]
    images: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a contact sheet shows: `episodes` of them, each at `times` instants, up to `cameras` cameras."""

    episodes: int = 4
    times: int = 6
    cameras: int = 3


def draw_histograms(survey: Survey, path: Path) -> Path | None:
    """A histogram for each dimension of each action column, counts on a log scale; dashed: 1st and 99th percentile."""
    panels = [panel for tally in survey.actions for panel in _panels(tally)]
    if not panels:
        return None
    with picture(path, len(panels), columns=4, height=1.8) as axes:
        for axis, (title, values) in zip(axes, panels, strict=True):
            axis.hist(values, bins=BINS, color=COLOURS[0], log=True)
            for edge in np.percentile(values, (1, 99)):
                axis.axvline(edge, color=COLOURS[1], linewidth=1, linestyle="--")
            axis.set_title(title)
            axis.set_ylim(bottom=0.5)
            axis.ticklabel_format(axis="x", scilimits=(-2, 4))
    return path


def draw_lengths(survey: Survey, path: Path) -> Path | None:
    """Histograms of the episodes' lengths and, where there are timestamps, of their rates."""
    panels = [("episode length [frames]", survey.lengths)]
    if survey.rates_hz:
        panels.append(("measured rate [Hz]", np.array(survey.rates_hz)))
    if not survey.episodes:
        return None
    with picture(path, len(panels), columns=2, height=2.0) as axes:
        for axis, (title, values) in zip(axes, panels, strict=True):
            middle, alike = float(values.mean()), np.ptp(values) <= 1e-6 * np.abs(values).max()
            span = (middle - 0.5, middle + 0.5) if alike else None  # bins as narrow as rounding cannot be made
            axis.hist(values, bins=min(BINS, max(5, len(values))), range=span, color=COLOURS[0])
            axis.set(title=title, ylabel="episodes")
            axis.ticklabel_format(axis="x", useOffset=False)
    return path


def draw_contact_sheet(source: EpisodeSource, path: Path, sheet: Sheet, faults: list[str]) -> Path | None:
    """Rows of images: some episodes, each camera a row, from first to last frame.

    What cannot be decoded is left grey and added to `faults`.
    """
    strips = list(_strips(source, sheet, faults))
    if not strips:
        return None
    with picture(path, len(strips) * sheet.times, columns=sheet.times, height=1.75) as axes:
        for place, axis in enumerate(axes):
            _draw_image(axis, strips[place // sheet.times], place % sheet.times)
    return path


def _draw_image(axis: Axes, strip: _Strip, column: int) -> None:
    axis.set(xticks=[], yticks=[], facecolor=MISSING)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    if column == 0:
        axis.set_ylabel(strip.camera, fontsize=7)
        axis.set_title(" " if strip.title else "", fontsize=8)  # room for the title, which is wider than its image
        axis.text(0, 1.04, strip.title, transform=axis.transAxes, fontsize=8).set_in_layout(False)
    if column >= len(strip.frames):
        axis.set_visible(False)
        return
    axis.set_xlabel(f"frame {strip.frames[column]}", fontsize=7, labelpad=2)
    if strip.images is not None:
        axis.imshow(strip.images[column])


def _panels(tally: ColumnTally) -> Iterator[tuple[str, NDArray[np.float64]]]:
    sample = tally.sample()
    for column, name in enumerate(tally.dimensions if len(sample) else ()):
        yield f"{tally.name} {name}", sample[:, column]


def _strips(source: EpisodeSource, sheet: Sheet, faults: list[str]) -> Iterator[_Strip]:
    cameras = list(source.spec.cameras)[: sheet.cameras]
    for episode in chosen_episodes(len(source.episodes), sheet.episodes):
        info = source.episodes[episode]
        if not info.length:
            continue
        frames = np.unique(np.linspace(0, info.length - 1, sheet.times).round().astype(np.int64))
        sentence = info.instructions[0] if info.instructions else info.task or "no sentence"
        title = f"{sentence}   ({info.key.removeprefix(f'{source.root}/')})"
        for camera in cameras:
            try:
                images = source.images(episode, camera, frames)
            except DataError as problem:
                faults.append(str(problem))
                images = None
            yield _Strip(title, last_word(camera), frames, images)
            title = ""

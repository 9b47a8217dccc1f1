"""What became of a conversion: episodes and frames that are there, and what was left out, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vla_training.datasets.source import EpisodeSource


@dataclass(frozen=True, slots=True)
class Skipped:
    """An episode that was left out, and why; the reason names it."""

    episode: str
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """episodes, frames: that are there now. resumed: how many of `unit` an earlier run had finished. report: the file
    that tells all this.
    """

    episodes: int
    frames: int
    skipped: tuple[Skipped, ...]
    resumed: int
    unit: str
    report: Path


def left_out_by(source: EpisodeSource) -> list[Skipped]:
    """What a reader found on the disk and does not offer: interrupted recordings, other outcomes."""
    found: dict[str, str] = getattr(source, "skipped", {})
    return [Skipped(name, f"{name}: {reason}") for name, reason in found.items()]

"""A player that makes results up, for tests of what carries them; it can kill its process once for one trial."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim_bridges.evaluation.trials import Trial, TrialResult
from sim_bridges.results import EpisodeResult
from vla_policy.errors import VlaError


def made_up(trial: Trial, success: bool = True) -> TrialResult:
    commands = np.random.default_rng(trial.seed).normal(size=(3, 7))
    episode = EpisodeResult(
        task=trial.task, seed=trial.seed, instruction=f"do {trial.task}", success=success,
        reason="SUCCEEDED" if success else "TIME_LIMIT", message="", steps=3, wall_s=0.1, control_rate_hz=20.0,
        commands=commands, requested=commands + 1, latencies_ms={"model": [1.0, 2.0]},
    )  # fmt: skip
    return TrialResult(trial, (episode,))


@dataclass(frozen=True)
class FakeSpec:
    """deadly: name of a trial that kills its process. marks: folder that remembers how often; `times` in all."""

    marks: Path
    deadly: str = ""
    times: int = 1
    refused: str = ""

    def build(self) -> FakePlayer:
        return FakePlayer(self)


class FakePlayer:
    def __init__(self, spec: FakeSpec) -> None:
        self._spec = spec

    def play(self, trial: Trial) -> TrialResult:
        if trial.name == self._spec.refused:
            raise VlaError(f"{trial.name} is refused")
        died = len(list(self._spec.marks.iterdir()))
        if trial.name == self._spec.deadly and died < self._spec.times:
            (self._spec.marks / str(died)).touch()
            os._exit(1)
        return made_up(trial)

    def close(self) -> None:
        pass

"""Trial results in as they end, a folder that survives anything out: finished trials are never played or counted twice.

run.json       what is measured; another run's folder is refused
trials.jsonl   a line for each finished trial, in the order they ended
commands/      what was asked and sent, an .npz for each trial
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from sim_bridges.evaluation.trials import Trial, TrialResult
from sim_bridges.results import EpisodeResult
from vla_policy.errors import ConfigError

ARRAYS = ("commands", "requested")
SMALL = tuple(field.name for field in fields(EpisodeResult) if field.name not in ARRAYS)


class ResultStore:
    """The folder of one run. Raises: ConfigError for a folder that cannot be written or belongs to another run."""

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.folder = folder
        self._trials = folder / "trials.jsonl"
        make_folder(folder)
        self._check_run(folder / "run.json", json.loads(json.dumps(run)))
        self._drop_torn_line()

    def load(self) -> dict[str, TrialResult]:
        """Finished trials by name."""
        if not self._trials.is_file():
            return {}
        rows = (json.loads(line) for line in self._trials.read_text(encoding="utf-8").splitlines())
        results = (self._read(row) for row in rows)
        return {result.trial.name: result for result in results}

    def add(self, result: TrialResult) -> None:
        """Keep a finished trial: first its commands, then its line, so that a line always has its commands."""
        path = self._commands(result.trial)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{number}.{name}": getattr(episode, name)
            for number, episode in enumerate(result.episodes)
            for name in ARRAYS
        }
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, **arrays)
        os.replace(partial, path)
        row = {
            "task": result.trial.task,
            "seed": result.trial.seed,
            "steps": list(result.steps),
            "episodes": [{name: _plain(getattr(episode, name)) for name in SMALL} for episode in result.episodes],
        }
        with self._trials.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, row: Mapping[str, Any]) -> TrialResult:
        trial = Trial(row["task"], row["seed"])
        with np.load(self._commands(trial), allow_pickle=False) as arrays:
            episodes = tuple(
                EpisodeResult(**small, **{name: arrays[f"{number}.{name}"] for name in ARRAYS})
                for number, small in enumerate(row["episodes"])
            )
        return TrialResult(trial, episodes, tuple(row["steps"]))

    def _commands(self, trial: Trial) -> Path:
        return self.folder / "commands" / f"{trial.name}.npz"

    def _check_run(self, path: Path, run: Mapping[str, Any]) -> None:
        if not path.is_file():
            if self._trials.exists():
                raise ConfigError(
                    f"{self.folder}: it holds trials of an unknown run (no run.json); choose another --output"
                )
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, path)
            return
        there = json.loads(path.read_text(encoding="utf-8"))
        other = [
            f"{key}: there {_short(there.get(key))}, now {_short(run.get(key))}"
            for key in sorted({*there, *run})
            if there.get(key) != run.get(key)
        ]
        if other:
            raise ConfigError(
                f"{self.folder}: it holds the results of another run ({'; '.join(other)}); choose another --output, or "
                "repeat that run's arguments to go on with it"
            )

    def _drop_torn_line(self) -> None:
        """What was being written when the process was killed; its trial is played again."""
        if not self._trials.is_file():
            return
        data = self._trials.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            self._trials.write_bytes(whole)


def in_order(trials: Sequence[Trial], results: Mapping[str, TrialResult]) -> list[TrialResult]:
    """The results of the plan's trials in the plan's order, as far as they are there."""
    return [results[trial.name] for trial in trials if trial.name in results]


def _plain(value: Any) -> Any:
    return {name: list(values) for name, values in value.items()} if isinstance(value, Mapping) else value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else text[:57] + "…"


def make_folder(folder: Path) -> None:
    """Make a folder for results. Raises: ConfigError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigError(f"{folder}: {problem.strerror}; expected a folder for the results; name another") from None
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder}: not writable; expected a folder for the results; name another")

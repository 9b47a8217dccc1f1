"""A run in, a folder from which it goes on exactly out, and back; written whole or not at all.

    progress.json  how far it is, and of which data
    *.safetensors  weights, averaged weights and the optimizer's moments

Each process writes what it holds by torch.distributed.checkpoint in its safetensors layout: sharded weights stay
sharded, and another number of processes can read them. Nothing in it is a pickle.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as checkpoint
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from vla_policy.errors import ConfigError, VlaError

PROGRESS = "progress.json"
BUDGET = ("steps", "max_minutes")
ANEW = "start anew in another --output"
RESERVE = 1.05  # of the bytes themselves: headers, and what others write meanwhile


class StateError(VlaError):
    """The state of a run cannot be written or read."""


def whole_bytes(tensors: Mapping[str, Tensor]) -> int:
    """What `tensors` take on the disk that all processes write to; sharded ones count whole."""
    return sum(value.numel() * value.element_size() for value in tensors.values())


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raises: StateError where the disk of `folder` has less than `needed` bytes left."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed * RESERVE:
        raise StateError(f"{folder}: {what} needs {needed * RESERVE / 1e6:.1f} MB, the disk has {free / 1e6:.1f} MB "
                         "left; free some, or choose another --output. Nothing was written; what was there is whole")


def partial_of(folder: Path) -> Path:
    """Where a state is written before it takes the place of `folder`."""
    return folder.with_name(folder.name + ".partial")


def make_empty(folder: Path) -> None:
    """A fresh folder, whatever was there. Raises: StateError."""
    shutil.rmtree(folder, ignore_errors=True)
    with written(folder):
        folder.mkdir(parents=True)


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Whatever cannot be written in the body is a StateError naming `folder`."""
    try:
        yield
    except (OSError, CheckpointException, SafetensorError) as problem:
        raise StateError(f"{folder}: could not be written: {_cause(problem)}; free some space or choose another "
                         "--output, and go on with --resume; what was there before is still whole") from None


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], alone: bool) -> None:
    """Every process writes its part of `tensors` to `folder`; all of them must call it. Raises: StateError."""
    with written(folder):
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        with _quiet():
            checkpoint.save(dict(tensors), storage_writer=writer, no_dist=alone)


def read_tensors(folder: Path, tensors: Mapping[str, Tensor], alone: bool) -> None:
    """Fill `tensors` in place from what `write_tensors` wrote. Raises: StateError where it does not fit."""
    reader = HuggingFaceStorageReader(str(folder))
    try:
        stored = reader.read_metadata().state_dict_metadata
        expected, got = ({name: tuple(value.size()) if isinstance(value, Tensor) else tuple(value.size)
                          for name, value in side.items()} for side in (tensors, stored))
        if expected != got:
            odd = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
            raise StateError(f"{folder}: it is the state of another model: {len(odd)} weights differ, the first is "
                             f"{odd[0]}: got {got.get(odd[0])}, expected {expected.get(odd[0])}; resume with the "
                             "config that the run was started with")
        with _quiet():
            checkpoint.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)
    except (OSError, CheckpointException, SafetensorError) as problem:
        raise StateError(f"{folder}: truncated or corrupt: {_cause(problem)}; {ANEW}") from None


def commit(folder: Path, progress: Mapping[str, Any]) -> None:
    """The partial state becomes the state; the one before is kept until then. For the first process alone.

    Raises: StateError.
    """
    partial, previous = partial_of(folder), folder.with_name(folder.name + ".previous")
    with written(partial):
        _write_synced(partial / PROGRESS, json.dumps(progress, indent=2))
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(folder, previous)
        os.replace(partial, folder)
    shutil.rmtree(previous, ignore_errors=True)


def find(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest whole state and its progress. Raises: ConfigError where there is none."""
    place = _newest(folder)
    if place is None:
        raise ConfigError(f"{folder}: nothing to resume there; start the run without --resume")
    try:
        return place, json.loads((place / PROGRESS).read_text(encoding="utf-8"))
    except ValueError as problem:
        raise StateError(f"{place / PROGRESS}: truncated or altered: {problem}; {ANEW}") from None


def check_none(folder: Path) -> None:
    """Raises: ConfigError where there is a state that a new run would replace."""
    if _newest(folder):
        raise ConfigError(f"{folder}: there is a run of {find(folder)[1]['step']} steps there; add --resume, or choose "
                          "another --output")


def check_same_run(folder: Path, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse to go on with what makes another run of it, but for a larger budget.

    got, expected: of this run and of the one in `folder`: what it learns from and in which order, and its budget,
    `steps` and `max_minutes`, None for no limit. Raises: ConfigError naming what differs.
    """
    odd = [key for key, value in got.items()
           if value != expected.get(key) and not (key in BUDGET and _limit(value) > _limit(expected.get(key)))]
    if odd:
        changed = "; ".join(f"{key}: got {got[key]}, expected {expected.get(key)}" for key in odd)
        raise ConfigError(f"{folder}: the state of another run: {changed}; resume with what the run was started with, "
                          "only steps and minutes may grow, or choose another --output")


def optimizer_tensors(
    parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """AdamW's moments and step counts by name; zeros, which are then part of the optimizer, before its first step."""
    found = {}
    for name, parameter in parameters.items():
        moments = optimizer.state[parameter]
        if not moments:
            moments |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter)}
        found |= {f"{name}/{key}": value for key, value in moments.items()}
    return found


def _newest(folder: Path) -> Path | None:
    places = (folder, folder.with_name(folder.name + ".previous"))
    return next((place for place in places if (place / PROGRESS).is_file()), None)


def _limit(value: float | None) -> float:
    return math.inf if value is None else value


@contextmanager
def _quiet() -> Iterator[None]:
    """A process alone is told by `no_dist` that it is; torch warns of it all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _cause(problem: BaseException) -> str:
    if isinstance(problem, CheckpointException):
        problem = next(iter(problem.failures.values()))[0]
    return " ".join(str(problem).split())

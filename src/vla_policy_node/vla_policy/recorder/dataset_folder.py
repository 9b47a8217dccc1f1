"""A folder of recorded episodes in; names for the next one, the newest one, and those that were interrupted, out."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from vla_policy.contract import RobotContract
from vla_policy.errors import DataError
from vla_policy.recording import EPISODE_FILE, RUNNING_FILE, EpisodeRecord, contract_differences, read_episode

_NUMBERED = re.compile(r"episode_(\d+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def next_name(folder: Path) -> str:
    """The name of an episode without one: a number above all that are there, so that the order is that of time."""
    numbers = [int(match[1]) for match in map(_NUMBERED.fullmatch, _names(folder)) if match]
    return f"episode_{max(numbers, default=-1) + 1:04d}"


def name_fault(folder: Path, name: str) -> str | None:
    """Why an episode cannot be called so, and what it may be called; None where it can."""
    if not _NAME.fullmatch(name):
        return f"name: got '{name}', expected letters, digits, '_', '-' and '.', without a folder"
    taken = set(_names(folder))
    if name not in taken:
        return None
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"name: {folder / name} is there already; '{name}_{number}' is free"


def contract_fault(folder: Path, contract: RobotContract) -> str | None:
    """Why an episode of this contract may not lie beside those in the folder; None where it may.

    One is looked at for all: each was held to those before it. Raises: DataError where it is broken.
    """
    newest = newest_episode(folder)
    if newest is None:
        return None
    different = contract_differences(contract, newest[1].contract)
    if not different:
        return None
    return (f"contract: not that of {newest[0].name} in {folder}: {'; '.join(different)}; keep the episodes of two "
            "contracts in two folders")


def newest_episode(folder: Path) -> tuple[Path, EpisodeRecord] | None:
    """The whole episode that was written last. Raises: DataError where it is broken."""
    whole = [folder / name for name in _names(folder) if (folder / name / EPISODE_FILE).is_file()]
    if not whole:
        return None
    written_ns, newest = max(((episode / EPISODE_FILE).stat().st_mtime_ns, episode) for episode in whole)
    return newest, _read(newest, written_ns)


@lru_cache(maxsize=1)
def _read(episode: Path, written_ns: int) -> EpisodeRecord:
    """The record as it was written then; a start looks at it many times."""
    return read_episode(episode)


def interrupted_episodes(folder: Path) -> list[Path]:
    """Those whose recording did not end and that nobody is recording now."""
    found = [folder / name for name in _names(folder)]
    return [episode for episode in found if not (episode / EPISODE_FILE).exists()
            and ((episode / RUNNING_FILE).exists() or any(episode.glob("*.mcap"))) and not is_locked(episode)]


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


# ---- who records in an episode's folder -----------------------------------------------------------------------------


def lock(episode: Path) -> int:
    """Claim an episode's folder; the claim ends with `os.close` of what is returned, or with the process.

    Raises: DataError where another process has it.
    """
    handle = os.open(episode, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise DataError(f"{episode}: is being recorded or recovered by another process; wait for its end") from None
    return handle


def is_locked(episode: Path) -> bool:
    """Whether a process records or recovers the episode now."""
    try:
        handle = lock(episode)
    except DataError:
        return True
    os.close(handle)
    return False


def sync_folder(folder: Path) -> None:
    """Bring names of files in it to the disk; a file system that cannot is none of ours to mend."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

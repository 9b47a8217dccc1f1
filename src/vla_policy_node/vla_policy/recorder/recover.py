"""An episode whose recording was interrupted in, the same episode whole out, as far as it had reached the disk.

    ros2 run vla_policy recover_episode outputs/demos/episode_0007     one episode
    ros2 run vla_policy recover_episode outputs/demos                  all interrupted ones in a folder

The new bag is written beside the old one, which is deleted once the new one is whole.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from vla_policy.contract import load_contract
from vla_policy.errors import DataError, VlaError
from vla_policy.recorder.bag import RosbagsWriter
from vla_policy.recorder.dataset_folder import interrupted_episodes, lock, sync_folder
from vla_policy.recorder.meter import EpisodeCount
from vla_policy.recorder.salvage import Salvage
from vla_policy.recording import (
    EPISODE_FILE,
    RUNNING_FILE,
    EpisodeRecord,
    RunningRecord,
    contract_hash,
    read_episode,
    read_running,
    write_episode,
)
from vla_policy.types import NS_PER_S

WORKSHOP = ".recovering"  # beside the episodes; its name keeps it out of their list
TORN = ".torn"
_log = logging.getLogger(__name__)


def recover(folder: Path, running: RunningRecord | None = None, keep: bool = False) -> EpisodeRecord:
    """Make the interrupted episode in `folder` whole. keep: its old files stay in .recovering beside it.

    running: what is known of it, where its recording.json is missing.
    Raises: DataError where it is whole, being recorded, or nothing in it is; OSError where the disk is full.
    """
    workshop = folder.absolute().parent / WORKSHOP
    made, torn = workshop / folder.name, workshop / f"{folder.name}{TORN}"
    if not folder.exists() and (made / EPISODE_FILE).exists():
        _swap(folder, made, torn, keep)  # an earlier recovery was interrupted between its last two steps
        return read_episode(folder)
    if (folder / EPISODE_FILE).exists():
        raise DataError(f"{folder}: is whole, it has its {EPISODE_FILE}; nothing is to be recovered")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give that of an interrupted episode")
    claim = lock(folder)
    try:
        running = running or _known(folder)
        shutil.rmtree(made, ignore_errors=True)
        record = _rewrite(folder, made, running)
        _swap(folder, made, torn, keep)
    finally:
        os.close(claim)
    return record


def _known(folder: Path) -> RunningRecord:
    try:
        return read_running(folder)
    except DataError as problem:
        raise DataError(f"{problem}; give what it was with --contract and --instruction") from None


def _rewrite(folder: Path, made: Path, running: RunningRecord) -> EpisodeRecord:
    files = sorted(folder.glob("*.mcap"))
    if len(files) != 1:
        raise DataError(f"{folder}: got {len(files)} MCAP files, expected one of an episode")
    salvage, counts, newest_ns = Salvage(files[0]), {}, running.start_ns
    try:
        made.parent.mkdir(exist_ok=True)
        bag = RosbagsWriter(made)
        for message in salvage:
            name = message.topic.name
            if name not in counts:
                counts[name] = EpisodeCount(message.topic, 0)
                bag.add_topic(message.topic)
            counts[name].take(message.received_ns)
            bag.write(name, message.received_ns, message.payload)
            newest_ns = max(newest_ns, message.received_ns)
        if newest_ns <= running.start_ns:
            raise DataError(f"{folder}: no message of the episode is whole in {files[0].name}; delete it, it is lost")
        bag.close()
        record = _record(running, counts, newest_ns, salvage.damaged_chunks)
        write_episode(made, record)
    except (VlaError, OSError):
        shutil.rmtree(made, ignore_errors=True)
        raise
    sync_folder(made)
    return record


def _record(running: RunningRecord, counts: dict[str, EpisodeCount], newest_ns: int, damaged: int) -> EpisodeRecord:
    seconds = (newest_ns - running.start_ns) / NS_PER_S
    notes = [running.note, f"the recording was interrupted and recovered; it is whole until {seconds:.1f} s"]
    if running.outcome != "unknown":
        notes.append(f"it had been marked as {running.outcome}, of which the end may be missing")
    if damaged:
        notes.append(f"{damaged} chunks of it were damaged and left out")
    known = running.model_copy(update={"outcome": "unknown", "note": "; ".join(filter(None, notes))})
    return EpisodeRecord(**dict(known), contract_hash=contract_hash(known.contract), stop_ns=newest_ns,
                         topics={name: count.record(0) for name, count in counts.items()})


def _swap(folder: Path, made: Path, torn: Path, keep: bool) -> None:
    """Put the new folder where the old one is, which is kept or deleted."""
    if folder.exists():
        shutil.rmtree(torn, ignore_errors=True)
        os.replace(folder, torn)
    os.replace(made, folder)
    sync_folder(folder.absolute().parent)
    if not keep:
        shutil.rmtree(torn, ignore_errors=True)
        with suppress(OSError):  # others are kept there
            torn.parent.rmdir()


def main() -> None:
    """Entry point; exit code 1 where an episode could not be recovered."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    options = _parse()
    failed = False
    for folder in options.folders:
        episodes = _to_recover(folder)
        if not episodes:
            _log.info("%s: no interrupted episode in it", folder)
        for episode in episodes:
            try:
                record = recover(episode, _given(options, episode), options.keep)
            except (VlaError, OSError) as problem:
                _log.error("%s", problem)
                failed = True
            else:
                count = sum(topic.messages for topic in record.topics.values())
                _log.info("%s: recovered, %d messages: %s", episode, count, record.note)
    sys.exit(1 if failed else 0)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make episodes whole whose recording was interrupted.")
    parser.add_argument("folders", nargs="+", type=Path, help="an episode, or a folder of episodes")
    parser.add_argument("--keep", action="store_true", help=f"keep the interrupted files, in {WORKSHOP} beside it")
    parser.add_argument("--contract", type=Path, help=f"robot contract of one without its {RUNNING_FILE}")
    parser.add_argument("--instruction", default="", help="what the robot was to do in it")
    options = parser.parse_args()
    if (options.contract is None) != (not options.instruction):
        parser.error("--contract and --instruction belong together")
    return options


def _to_recover(folder: Path) -> list[Path]:
    """The episode itself, or the interrupted ones in a folder, those of an interrupted recovery included."""
    marks = (EPISODE_FILE, RUNNING_FILE, "*.mcap")
    if not folder.exists() or any(file for mark in marks for file in folder.glob(mark)):
        return [folder]
    half_way = [folder / made.parent.name for made in (folder / WORKSHOP).glob(f"*/{EPISODE_FILE}")]
    return interrupted_episodes(folder) + [episode for episode in half_way if not episode.exists()]


def _given(options: argparse.Namespace, episode: Path) -> RunningRecord | None:
    """What the options say of an episode whose recording.json is missing; it began with its first message."""
    if options.contract is None or (episode / RUNNING_FILE).exists():
        return None
    files = sorted(episode.glob("*.mcap"))
    first = next(iter(Salvage(files[0])), None) if files else None
    if first is None:
        raise DataError(f"{episode}: no message is whole in it; delete it, it is lost")
    return RunningRecord(contract=load_contract(options.contract), instruction=options.instruction,
                         start_ns=first.received_ns)


if __name__ == "__main__":
    main()

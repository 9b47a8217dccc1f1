"""Serialised messages in, one episode's folder out: written by a thread of its own, so that nobody waits for a disk.

What was put is out of the process a second later; one that is killed loses no more. See `vla_policy.recorder.recover`.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

from vla_policy.recorder.bag import BagTopic, BagWriter, OpenBag
from vla_policy.recorder.dataset_folder import lock, sync_folder
from vla_policy.recording import RUNNING_FILE, EpisodeRecord, RunningRecord, write_episode, write_running

SYNC_S = 1.0
_Message = tuple[BagTopic, int, bytes]


class _Discard:
    """Put last: the episode's folder is deleted."""


class EpisodeWriter:
    """An episode from its start. `put`, `note` and one of `finish` and `discard` at the end come from one thread.

    queue_bytes: messages beyond it are refused. reserve_bytes: with less on the disk it is `nearly_full`.
    messages, bytes: written so far. failure: why nothing more is written, in words; what was written stays.
    Raises: OSError or RuntimeError where the folder cannot be made.
    """

    def __init__(self, folder: Path, open_bag: OpenBag, running: RunningRecord, queue_bytes: int,
                 reserve_bytes: int) -> None:
        self.folder, self.failure, self.nearly_full = folder, "", False
        self.messages = self.bytes = 0
        self._queue: SimpleQueue[_Message | RunningRecord | EpisodeRecord | _Discard] = SimpleQueue()
        self._queue_bytes, self._reserve_bytes = queue_bytes, reserve_bytes
        self._put_bytes = self._taken_bytes = 0  # each changed by one thread alone
        self._topics: set[str] = set()
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._bag: BagWriter = open_bag(folder)
        self._lock = lock(folder)
        self._queue.put(running)
        self._thread = threading.Thread(target=self._run, name=f"write {folder.name}", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether the folder is as it will stay."""
        return not self._thread.is_alive()

    def put(self, topic: BagTopic, received_ns: int, payload: bytes) -> bool:
        """Hand over a message; False where the queue is full or writing failed: it is lost."""
        if self.failure or self._put_bytes - self._taken_bytes + len(payload) > self._queue_bytes:
            return False
        self._put_bytes += len(payload)
        self._queue.put((topic, received_ns, payload))
        return True

    def note(self, running: RunningRecord) -> None:
        """Something became known, e.g. an outcome."""
        self._queue.put(running)

    def finish(self, record: EpisodeRecord) -> None:
        """Write what was put, close the bag, and `record` last."""
        self._queue.put(record)

    def discard(self) -> None:
        """Delete the episode."""
        self._queue.put(_Discard())

    # ---- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        # Whatever a disk or a bag library does must end the episode in words, not the thread in silence.
        try:
            self._serve()
        except Exception as problem:  # noqa: BLE001
            if not isinstance(problem, OSError):
                logging.getLogger(__name__).exception("writing %s", self.folder)
            words = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
            self._bag.abort()
            self.failure = f"{self.folder}: {words}"
        finally:
            os.close(self._lock)

    def _serve(self) -> None:
        due_s = time.monotonic() + SYNC_S
        while True:
            try:
                item = self._queue.get(timeout=max(0.0, due_s - time.monotonic()))
            except Empty:
                item = None
            if isinstance(item, EpisodeRecord):
                self._seal(item)
                return
            if isinstance(item, _Discard):
                self._bag.abort()
                shutil.rmtree(self.folder)
                return
            if isinstance(item, RunningRecord):
                write_running(self.folder, item)
            elif item is not None:
                self._write(*item)
            if time.monotonic() >= due_s:
                self._bag.sync()
                self.nearly_full = shutil.disk_usage(self.folder).free < self._reserve_bytes
                due_s = time.monotonic() + SYNC_S

    def _write(self, topic: BagTopic, received_ns: int, payload: bytes) -> None:
        if topic.name not in self._topics:
            self._bag.add_topic(topic)
            self._topics.add(topic.name)
        self._bag.write(topic.name, received_ns, payload)
        self._taken_bytes += len(payload)
        self.messages += 1
        self.bytes += len(payload)

    def _seal(self, record: EpisodeRecord) -> None:
        self._bag.close()
        sync_folder(self.folder)
        write_episode(self.folder, record)
        (self.folder / RUNNING_FILE).unlink()
        sync_folder(self.folder)
        sync_folder(self.folder.parent)

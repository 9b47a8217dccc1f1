"""Run requests in, chunks and ends out: the one thread that owns the policy and torch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from vla_policy.run import EndReason, PolicyRun, RunEnd
from vla_policy.types import ActionChunk

POLL_S = 0.05  # how long the thread sleeps at most when nothing arrives


class RunWorker:
    """A daemon thread that steps the active run whenever `notify` says that something arrived.

    now_ns: ROS time. on_chunk(run, chunk), on_end(run, end): called in this thread.
    """

    def __init__(self, now_ns: Callable[[], int], on_chunk: Callable[[PolicyRun, ActionChunk], None],
                 on_end: Callable[[PolicyRun, RunEnd], None]) -> None:
        self._now_ns = now_ns
        self._on_chunk = on_chunk
        self._on_end = on_end
        self._wake = threading.Event()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._run: PolicyRun | None = None
        self._next: PolicyRun | None = None
        self._begun = False
        self._requested_end: RunEnd | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="policy", daemon=True)
        self._thread.start()

    def call(self, job: Callable[[], Any], timeout_s: float) -> Any:
        """Run `job` in the policy's thread and return its result. Raises: what `job` raises, TimeoutError."""
        future: Future[Any] = Future()
        self._jobs.put((job, future))
        self._wake.set()
        return future.result(timeout_s)

    @property
    def run(self) -> PolicyRun | None:
        """The active run, if there is one."""
        return self._run

    def start(self, run: PolicyRun) -> bool:
        """Make `run` the active one; False if another is active."""
        with self._lock:
            if self._run is not None:
                return False
            self._run = run
        self._wake.set()
        return True

    def replace(self, run: PolicyRun) -> None:
        """Cancel the active run and begin `run` as soon as the step under way is done; the last one wins."""
        with self._lock:
            if self._run is None:
                self._run = run
            else:
                self._next = run
                self._requested_end = self._requested_end or RunEnd(EndReason.CANCELED, "a new instruction came")
        self._wake.set()

    def end(self, reason: EndReason, message: str, only: PolicyRun | None = None) -> None:
        """End the active run from outside, and the one that waits to replace it. The first reason is kept.

        only: do so only while this very run is active.
        """
        with self._lock:
            if self._run is None or (only is not None and only is not self._run):
                return
            self._next = None
            self._requested_end = self._requested_end or RunEnd(reason, message)
        self._wake.set()

    def notify(self) -> None:
        """Something arrived; look again. Without a run nobody waits for it, and a wake-up costs more than a message."""
        if self._run is not None:
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """End the active run as DEACTIVATED and stop the thread; wait for that for at most `timeout_s`."""
        self.end(EndReason.DEACTIVATED, "the policy node is being deactivated")
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while not (self._closing and self._run is None):
            self._wake.wait(POLL_S)
            self._wake.clear()
            while not self._jobs.empty():
                _execute(*self._jobs.get())
            if self._run is not None:
                self._advance(self._run)

    def _advance(self, run: PolicyRun) -> None:
        end = self._requested_end or self._step(run)
        if end is None:
            return
        with self._lock:
            self._run, self._next = self._next, None
            self._begun, self._requested_end = False, None
        try:
            self._on_end(run, end)
        except Exception:  # noqa: BLE001 - the next run needs this thread
            logging.getLogger(__name__).exception("the end of run %d", run.request.run_id)
        self._wake.set()  # a run may have waited for this one to end

    def _step(self, run: PolicyRun) -> RunEnd | None:
        # Whatever goes wrong in a model must end the run in words and stop the robot, never the thread.
        try:
            if not self._begun:
                self._begun = True
                self._wake.set()  # its first observation may be here already
                return run.begin()
            outcome = run.poll(self._now_ns(), time.monotonic_ns())
            if isinstance(outcome, ActionChunk):
                self._on_chunk(run, run.release(outcome, self._now_ns()))
                self._wake.set()  # a late tick may already be due
                return None
            return outcome
        except Exception as problem:  # noqa: BLE001
            logging.getLogger(__name__).exception("run %d", run.request.run_id)
            return RunEnd(EndReason.POLICY_ERROR, f"inference failed: {type(problem).__name__}: {problem}")


def _execute(job: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(job())
    except BaseException as problem:  # noqa: BLE001 - handed to the caller, who raises it
        future.set_exception(problem)

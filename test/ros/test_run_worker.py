"""RunWorker: one run at a time, ends in order, and a thread that survives whatever a policy does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest

from vla_policy.run import EndReason, RunEnd, RunRequest
from vla_policy.types import ActionChunk
from vla_policy_node.run_worker import RunWorker

TIMEOUT_S = 30.0
CHUNK = ActionChunk(0, 1, np.zeros((1, 7)), 1, 1)


class ScriptedRun:
    """A run that does what `poll` says, once a notification; `began` and `end` are futures to wait for."""

    def __init__(
        self, run_id: int, poll: Callable[[], ActionChunk | RunEnd | None] = lambda: None, refused: RunEnd | None = None
    ) -> None:
        self.request = RunRequest(run_id, "open the drawer")
        self.began: Future[int] = Future()
        self.end: Future[RunEnd] = Future()
        self._poll = poll
        self._refused = refused

    def begin(self) -> RunEnd | None:
        self.began.set_result(threading.get_ident())
        return self._refused

    def poll(self, now_ns: int, steady_ns: int) -> ActionChunk | RunEnd | None:
        return self._poll()

    def release(self, chunk: ActionChunk, now_ns: int) -> ActionChunk:
        return chunk

    def ended(self) -> RunEnd:
        return self.end.result(TIMEOUT_S)


@pytest.fixture
def chunks() -> list[ActionChunk]:
    return []


@pytest.fixture
def worker(chunks: list[ActionChunk]) -> Iterator[RunWorker]:
    worker = RunWorker(lambda: 0, lambda run, chunk: chunks.append(chunk), lambda run, end: run.end.set_result(end))
    yield worker
    worker.close(TIMEOUT_S)


def test_one_run_at_a_time(worker: RunWorker) -> None:
    first, second = ScriptedRun(1), ScriptedRun(2)
    assert worker.start(first)
    assert not worker.start(second)
    assert worker.run is first
    worker.end(EndReason.CANCELED, "enough")
    assert first.ended() == RunEnd(EndReason.CANCELED, "enough")
    assert worker.start(second)


def test_chunks_are_handed_on_until_the_run_ends(worker: RunWorker, chunks: list[ActionChunk]) -> None:
    outcomes = iter([CHUNK, None, CHUNK, RunEnd(EndReason.TIME_LIMIT, "over")])
    run = ScriptedRun(1, lambda: next(outcomes))
    worker.start(run)
    assert run.ended().reason is EndReason.TIME_LIMIT
    assert len(chunks) == 2


def test_a_refused_instruction_ends_before_the_first_step(worker: RunWorker, chunks: list[ActionChunk]) -> None:
    run = ScriptedRun(1, lambda: CHUNK, RunEnd(EndReason.INSTRUCTION_REFUSED, "unknown word"))
    worker.start(run)
    assert run.ended().reason is EndReason.INSTRUCTION_REFUSED
    assert not chunks


def test_an_error_in_a_step_ends_the_run_and_the_thread_lives_on(worker: RunWorker) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    run, after = ScriptedRun(1, fail), ScriptedRun(2)
    worker.start(run)
    end = run.ended()
    assert end.reason is EndReason.POLICY_ERROR
    assert "RuntimeError: out of memory" in end.message
    assert worker.start(after)
    assert after.began.result(TIMEOUT_S) == run.began.result(TIMEOUT_S)


def test_an_error_while_publishing_ends_the_run_too() -> None:
    def fail(run: ScriptedRun, chunk: ActionChunk) -> None:
        raise ValueError("cannot be sent")

    worker = RunWorker(lambda: 0, fail, lambda run, end: run.end.set_result(end))
    run = ScriptedRun(1, lambda: CHUNK)
    worker.start(run)
    assert run.ended().reason is EndReason.POLICY_ERROR
    worker.close(TIMEOUT_S)


def test_an_error_while_a_run_is_ended_leaves_the_thread_alive() -> None:
    def fail(run: ScriptedRun, end: RunEnd) -> None:
        run.end.set_result(end)
        raise ValueError("cannot be told")

    worker = RunWorker(lambda: 0, lambda run, chunk: None, fail)
    for run_id in (1, 2):
        run = ScriptedRun(run_id)
        assert worker.start(run)
        worker.end(EndReason.CANCELED, "enough")
        assert run.ended().reason is EndReason.CANCELED
    worker.close(TIMEOUT_S)


def test_the_first_reason_to_end_is_kept(worker: RunWorker) -> None:
    hold, stepping = threading.Event(), threading.Event()

    def step() -> None:
        stepping.set()
        hold.wait(TIMEOUT_S)

    run = ScriptedRun(1, step)
    worker.start(run)
    assert stepping.wait(TIMEOUT_S)
    worker.end(EndReason.SAFETY_STOP, "first")
    worker.end(EndReason.CANCELED, "second")
    hold.set()
    assert run.ended() == RunEnd(EndReason.SAFETY_STOP, "first")


def test_the_last_of_several_replacements_wins(worker: RunWorker) -> None:
    hold, stepping = threading.Event(), threading.Event()

    def step() -> None:
        stepping.set()
        hold.wait(TIMEOUT_S)

    runs = [ScriptedRun(1, step), ScriptedRun(2), ScriptedRun(3)]
    worker.start(runs[0])
    assert stepping.wait(TIMEOUT_S)
    worker.replace(runs[1])
    worker.replace(runs[2])
    hold.set()
    assert runs[0].ended().reason is EndReason.CANCELED
    assert runs[2].began.result(TIMEOUT_S)
    assert not runs[1].began.done()
    assert worker.run is runs[2]


def test_an_end_from_outside_also_drops_the_run_that_waits(worker: RunWorker) -> None:
    hold, stepping = threading.Event(), threading.Event()

    def step() -> None:
        stepping.set()
        hold.wait(TIMEOUT_S)

    first, second = ScriptedRun(1, step), ScriptedRun(2)
    worker.start(first)
    assert stepping.wait(TIMEOUT_S)
    worker.replace(second)
    worker.end(EndReason.SAFETY_STOP, "stop")
    hold.set()
    first.ended()
    assert worker.call(lambda: worker.run, TIMEOUT_S) is None
    assert not second.began.done()


def test_an_end_meant_for_another_run_changes_nothing(worker: RunWorker) -> None:
    old, run = ScriptedRun(1), ScriptedRun(2)
    worker.start(run)
    worker.end(EndReason.SAFETY_STOP, "too late", only=old)
    worker.end(EndReason.CANCELED, "meant")
    assert run.ended().reason is EndReason.CANCELED


def test_jobs_run_in_the_thread_of_the_policy_and_raise_at_the_caller(worker: RunWorker) -> None:
    run = ScriptedRun(1)
    worker.start(run)
    assert worker.call(threading.get_ident, TIMEOUT_S) == run.began.result(TIMEOUT_S) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 / 0, TIMEOUT_S)


def test_closing_ends_the_run_first(worker: RunWorker) -> None:
    run = ScriptedRun(1)
    worker.start(run)
    worker.close(TIMEOUT_S)
    assert run.ended().reason is EndReason.DEACTIVATED

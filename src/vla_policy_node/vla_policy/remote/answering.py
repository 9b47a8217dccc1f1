"""Messages of any number of clients in, their answers out: one thread owns torch, observations may be stepped together.

The event loop only moves bytes. Messages are unpacked (images decoded) in a few threads, the policies run in one, in
the order of arrival; while it runs, what arrives waits and is then stepped together, up to `Batching.most` at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from vla_policy.errors import RemoteError, VlaError
from vla_policy.remote.session import Asked, Session
from vla_policy.remote.wire import Message, MessageType, pack, unpack
from vla_policy.types import ActionChunk, InFlight, Observation

LOGGER = logging.getLogger("vla_policy.remote")
UNPACKING_THREADS = 4
# Policies, observations, run ids and rows in flight in, a chunk or a mistake for each out: policy.step_together.
StepTogether = Callable[[Sequence[Any], Sequence[Observation], Sequence[int], Sequence[InFlight | None]],
                        Sequence[ActionChunk | VlaError]]


@dataclass(frozen=True, slots=True)
class Batching:
    """step_together: how several policies are stepped at once. most: how many. wait_s: how long the first observation
    waits for others; 0: it never does, but what came while the policy ran is stepped together all the same.
    """

    step_together: StepTogether
    most: int
    wait_s: float = 0.0


@dataclass(slots=True)
class _Waiting:
    """An observation that waits for its step. received_s: monotonic. wanted: whether its client is still there."""

    session: Session
    asked: Asked
    received_s: float
    wanted: Callable[[], bool]
    done: asyncio.Future[Message] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def refusal(self) -> VlaError | None:
        """Why it is not worth a step any more."""
        if not self.wanted():
            return RemoteError("the client is gone")
        late_s = time.monotonic() - self.received_s
        if late_s > self.asked.answer_s:
            return RemoteError(f"late: the observation waited {late_s:.2f} s, its answer was wanted within "
                               f"{self.asked.answer_s:g} s; it was not computed; the server has too much to do")
        return None


class Answering:
    """Sessions and their answers. Made and used in one event loop; `close` it at the end.

    make_session: a session for a new client, built in torch's thread. batching: None: one observation at a time.
    """

    def __init__(self, make_session: Callable[[], Session], batching: Batching | None = None) -> None:
        self._make_session = make_session
        self._batching = batching
        self._torch = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._unpacking = ThreadPoolExecutor(UNPACKING_THREADS, thread_name_prefix="unpack")
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._stepper = asyncio.get_running_loop().create_task(self._step_for_ever())

    async def open(self) -> Session:
        """A session for a new client."""
        return await self._in(self._torch, self._make_session)

    async def answer(self, session: Session, data: bytes | str,
                     wanted: Callable[[], bool] = lambda: True) -> bytes | None:
        """The answer's bytes, None where a message wants none; mistakes of the client become an `error` message.

        wanted: whether the client is still there; asked before its observation is stepped.
        """
        received_s, sequence = time.monotonic(), 0
        try:
            message, outcome = await self._in(self._unpacking, _take, session, data)
            sequence = message.seq
            if outcome is message:
                outcome = await self._in(self._torch, session.hear, message)
            reply = await self._stepped(session, outcome, received_s, wanted) if isinstance(outcome, Asked) else outcome
        except VlaError as problem:
            reply = _error(sequence, str(problem), type(problem).__name__)
        except Exception as problem:  # a fault of the policy must not take the other robots' server down
            LOGGER.exception("the policy failed")
            reply = _error(sequence, f"the policy failed: {type(problem).__name__}: {problem}", "Exception")
        return None if reply is None else pack(reply)

    async def close(self) -> None:
        """End the threads; what waits gets no answer."""
        self._stepper.cancel()
        self._torch.shutdown(wait=False, cancel_futures=True)
        self._unpacking.shutdown(wait=False, cancel_futures=True)

    async def _stepped(self, session: Session, asked: Asked, received_s: float,
                       wanted: Callable[[], bool]) -> Message:
        waiting = _Waiting(session, asked, received_s, wanted)
        self._queue.put_nowait(waiting)
        return await waiting.done

    async def _step_for_ever(self) -> None:
        while True:
            batch = await self._next_batch()
            try:
                answers = await self._in(self._torch, self._step, batch)
            except Exception as problem:  # each client is told, and the next batch is served
                answers = [problem] * len(batch)
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.done.done():  # its connection was closed meanwhile
                    continue
                if isinstance(answer, Exception):
                    waiting.done.set_exception(answer)
                else:
                    waiting.done.set_result(answer)

    async def _next_batch(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        if self._batching is None:
            return batch
        until_s = time.monotonic() + self._batching.wait_s
        while len(batch) < self._batching.most:
            try:
                batch.append(self._queue.get_nowait())
            except asyncio.QueueEmpty:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    break
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), left_s))
                except TimeoutError:
                    break
        return batch

    def _step(self, batch: list[_Waiting]) -> list[Message | Exception]:
        """In torch's thread: the answer to each, or what is wrong with it."""
        answers: list[Any] = [waiting.refusal() for waiting in batch]
        going = [index for index, refusal in enumerate(answers) if refusal is None]
        chunks = self._chunks([batch[index] for index in going])
        for index, chunk in zip(going, chunks, strict=True):
            waiting = batch[index]
            answers[index] = chunk if isinstance(chunk, Exception) else waiting.session.reply(waiting.asked, chunk)
        return answers

    def _chunks(self, batch: list[_Waiting]) -> Sequence[ActionChunk | Exception]:
        if self._batching is not None and len(batch) > 1:
            asked = [waiting.asked for waiting in batch]
            return self._batching.step_together(
                [waiting.session.policy for waiting in batch], [each.observation for each in asked],
                [each.run_id for each in asked], [each.in_flight for each in asked])
        return [_or_problem(waiting.session.step, waiting.asked) for waiting in batch]

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, job: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, job, *arguments)


def _take(session: Session, data: bytes | str) -> tuple[Message, Asked | Message | None]:
    """A message, and what comes of it; itself where that is the business of torch's thread. Raises: VlaError."""
    message = unpack(data)
    return message, message if session.begins(message) else session.hear(message)


def _or_problem(step: Callable[[Asked], ActionChunk], asked: Asked) -> ActionChunk | Exception:
    try:
        return step(asked)
    except Exception as problem:  # noqa: BLE001 - its client is told
        return problem


def _error(sequence: int, text: str, kind: str) -> Message:
    return Message(MessageType.ERROR, {"error": text, "kind": kind}, sequence)

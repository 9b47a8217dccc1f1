"""A number of workers in, an executor and a queue that its workers can report to out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from queue import Queue
from typing import Any


@contextmanager
def workers(count: int) -> Iterator[tuple[Executor, Queue[Any]]]:
    """Fresh processes; a single worker is a thread of this process, which starts faster."""
    if count == 1:
        with ThreadPoolExecutor(1) as pool:
            yield pool, Queue()
        return
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(count, mp_context=context) as pool:
        yield pool, manager.Queue()

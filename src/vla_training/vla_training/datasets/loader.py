"""A set of windows and the draws of each batch in, batches out: made ahead by worker processes, waits measured."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Sequence

import cv2
import torch
from torch.utils.data import DataLoader

from vla_policy.errors import VlaError
from vla_training.datasets.batch import Batch
from vla_training.datasets.windows import Draw, WindowSet

PREFETCH = 2  # batches that each worker makes ahead


class WindowLoader:
    """Iterates over the batches of `draws`, in their order. wait_s: how long the caller waited for batches, all in
    all [s].
    """

    def __init__(
        self, windows: WindowSet, draws: Iterable[Sequence[Draw]], workers: int = 0, pin_memory: bool = False
    ) -> None:
        """workers: processes beside this one; with 0 batches are made here, when they are asked for.

        The batches are the same for any number of workers. pin_memory: keep them where a GPU copies from without
        waiting.
        """
        self.wait_s = 0.0
        ahead = {"prefetch_factor": PREFETCH, "multiprocessing_context": "forkserver"} if workers else {}
        self._loader = DataLoader(
            _Guarded(windows),
            batch_sampler=draws,
            collate_fn=_as_it_is,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker if workers else None,
            **ahead,
        )

    def __iter__(self) -> Iterator[Batch]:
        """Raises: VlaError where a window cannot be read; it tells file and episode."""
        batches = iter(self._loader)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.wait_s += time.perf_counter() - started
            if batch is None:
                return
            if isinstance(batch, VlaError):
                raise batch
            yield batch


def window_loader(
    windows: WindowSet, draws: Iterable[Sequence[Draw]], workers: int = 0, pin_memory: bool = False
) -> WindowLoader:
    """The loader of these draws."""
    return WindowLoader(windows, draws, workers, pin_memory)


class _Guarded:
    """Hands a refusal over as a value: torch would wrap it in a worker's traceback."""

    def __init__(self, windows: WindowSet) -> None:
        self._windows = windows

    def __getitem__(self, draw: Draw) -> Batch | VlaError:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw]) -> Batch | VlaError:
        try:
            return self._windows.__getitems__(draws)
        except VlaError as problem:
            return problem


def _as_it_is(batch: Batch | VlaError) -> Batch | VlaError:
    return batch


def _start_worker(_: int) -> None:
    """One thread a worker; Ctrl-C is the parent's to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

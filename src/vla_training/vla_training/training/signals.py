"""Ctrl-C or SIGTERM in, a wish to stop out; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

# A terminal sends Ctrl-C to every process, and a launcher passes it on: that is still the first one.
ECHO_S = 2.0
BY_LAUNCHER = "TORCHELASTIC_RUN_ID"


class StopRequest:
    """Whether, and by which signal, a run was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since_s = 0.0
        self._echo_s = ECHO_S if _launched() else 0.0

    def __bool__(self) -> bool:
        return self.signal is not None

    def hear(self, number: int, _frame: object = None) -> None:
        """The signal handler: the first is noted, and the loop ends after the step it is in; the second is obeyed."""
        if self.signal is None:
            self.signal, self._since_s = number, time.monotonic()
        elif time.monotonic() - self._since_s >= self._echo_s:
            _end_at_once(128 + number)


def _launched() -> bool:
    """Whether torchrun or accelerate started this process, one of several, and passes signals on."""
    return BY_LAUNCHER in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1


def _end_at_once(status: int) -> None:
    """Nothing is half-written: files are renamed into place when they are whole."""
    for child in psutil.Process().children(recursive=True):  # the simulator too, whose session hears no Ctrl-C
        with suppress(psutil.Error):
            child.kill()
    os._exit(status)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Listen while the body runs."""
    request = StopRequest()
    before = {number: signal.signal(number, request.hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

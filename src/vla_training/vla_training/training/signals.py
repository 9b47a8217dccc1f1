"""Ctrl-C or SIGTERM in, a wish to stop out; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

# A terminal sends Ctrl-C to every process, and a launcher passes it on: that is still the first one.
ECHO_S = 2.0


class StopRequest:
    """Whether, and by which signal, a run was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since_s = 0.0

    def __bool__(self) -> bool:
        return self.signal is not None

    def hear(self, number: int, _frame: object = None) -> None:
        """The signal handler: the first is noted, and the loop ends after the step it is in; the second is obeyed."""
        if self.signal is None:
            self.signal, self._since_s = number, time.monotonic()
        elif time.monotonic() - self._since_s > ECHO_S:
            os._exit(128 + number)  # nothing is half-written: files are renamed into place when they are whole


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

"""A command in; its process, what it prints, and everything it started, out."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil


class Spawned:
    """A process in its own session whose output (stdout and stderr together) is collected by a thread."""

    def __init__(self, command: list[str | Path], env: dict[str, str], cwd: Path | None = None) -> None:
        self.env = env
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=env,
            cwd=cwd,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Started from a background job the suite itself ignores SIGINT, and children inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._seen: list[str] = []
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything printed so far."""
        while not self._lines.empty():
            self._seen.append(self._lines.get() or "")
        return "".join(self._seen)

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """Return the first match of `pattern` in the output; AssertionError when it does not come."""
        end_s = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.output)):
            try:
                line = self._lines.get(timeout=max(0.01, end_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} within {timeout_s} s in:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"process ended without {pattern!r}:\n{self.output}")
            self._seen.append(line)
        return match

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone (not to its children)."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Return the exit code; AssertionError with the output when the process does not end."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process runs on after {timeout_s} s:\n{self.output}") from None
        time.sleep(0.05)  # lets the collector take the last lines
        return code


Spawn = Callable[..., Spawned]


def processes_with_env(name: str, value: str) -> list[psutil.Process]:
    """Return the live processes whose environment holds `name=value`, orphans and other sessions included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found

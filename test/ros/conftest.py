"""In: nothing. Out: `ros_env`, a ROS domain per module; `spawn`, processes that end with the test."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

_MARK = "VLA_TEST_MARK"
_FIRST_DOMAIN, _LAST_DOMAIN = 1, 101  # above 101 the DDS ports run into Linux's ephemeral range
_PORT_OF_DOMAIN_0 = 17300


def _claim_domain() -> tuple[int, socket.socket]:
    """Return a ROS domain id that no other test run on this machine holds, and the socket that claims it."""
    count = _LAST_DOMAIN - _FIRST_DOMAIN + 1
    for offset in range(count):
        domain = _FIRST_DOMAIN + (os.getpid() + offset) % count
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", _PORT_OF_DOMAIN_0 + domain))
        except OSError:
            claim.close()
            continue
        return domain, claim
    raise RuntimeError(
        f"got no free ROS domain, expected one of {_FIRST_DOMAIN}..{_LAST_DOMAIN}; "
        "too many test runs on this machine: wait for one to end"
    )


@pytest.fixture(scope="module")
def ros_env() -> Iterator[dict[str, str]]:
    """Environment for processes of this module; its ROS_DOMAIN_ID also holds for rclpy in this process."""
    domain, claim = _claim_domain()
    with claim, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("PYTHONUNBUFFERED", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield dict(os.environ)


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


@pytest.fixture
def spawn(ros_env: dict[str, str]) -> Iterator[Spawn]:
    """`spawn([command, …], env={extra}, cwd=…)` starts a process; it and all it started end with the test."""
    yield from _spawner(ros_env)


@pytest.fixture(scope="module")
def spawn_shared(ros_env: dict[str, str]) -> Iterator[Spawn]:
    """As `spawn`, for processes that serve all tests of a module."""
    yield from _spawner(ros_env)


def _spawner(ros_env: dict[str, str]) -> Iterator[Spawn]:
    mark = uuid.uuid4().hex

    def start(
        command: list[str | Path], env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> Spawned:
        return Spawned(command, {**ros_env, **(env or {}), _MARK: mark}, cwd)

    yield start
    for process in processes_with_env(_MARK, mark):
        process.kill()


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

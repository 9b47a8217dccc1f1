"""In: nothing. Out: `ros_env`, a ROS domain per module; `spawn`, processes that end with the test."""

from __future__ import annotations

import itertools
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Spawn, Spawned, processes_with_env

_MARK = "VLA_TEST_MARK"
_FIRST_DOMAIN, _LAST_DOMAIN = 1, 101  # above 101 the DDS ports run into Linux's ephemeral range
_PORT_OF_DOMAIN_0 = 17300
_CLAIMS = itertools.count()


def _claim_domain() -> tuple[int, socket.socket]:
    """Return a ROS domain id that no other test run on this machine holds, and the socket that claims it."""
    count = _LAST_DOMAIN - _FIRST_DOMAIN + 1
    first = os.getpid() + next(_CLAIMS)  # a module does not meet what the one before it left behind
    for offset in range(count):
        domain = _FIRST_DOMAIN + (first + offset) % count
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

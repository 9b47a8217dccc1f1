"""In: nothing. Out: a hidden rclpy node for one command, and waits that end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.client import Client
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from .main import CommandError

DISCOVERY_S = 5.0  # lists wait at most so long; endpoints on this machine usually appear within 0.1 to 2 s
NAMED_S = 15.0  # what has a name and is not seen by then is not there; a lost announcement is repeated after 3 s
_QUIET_S = 0.5  # a graph that did not change for this long counts as complete


@contextmanager
def node() -> Iterator[Node]:
    """A node named /_ros2cli_<pid>; Ctrl-C reaches Python, so that a command can still say goodbye."""
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield rclpy.create_node(
            f"_ros2cli_{os.getpid()}", start_parameter_services=False, enable_rosout=False
        )
    finally:
        rclpy.try_shutdown()


def wait_until(node: Node, ready: Callable[[], Any], timeout_s: float | None = NAMED_S) -> bool:
    """Spin until `ready()` is true (returns True) or the time is over (returns False)."""
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    while not ready():
        if end_s is not None and time.monotonic() > end_s:
            return False
        rclpy.spin_once(node, timeout_sec=0.1)
    return True


def settled(node: Node, ask: Callable[[], Any]) -> Any:
    """Return what `ask()` says once other nodes are seen and the graph stays the same (or time is over)."""

    def graph() -> Any:
        """Return what this node sees now: names of nodes, topics with types, services with types."""
        return node.get_node_names(), node.get_topic_names_and_types(), node.get_service_names_and_types()

    seen, since_s, end_s = graph(), time.monotonic(), time.monotonic() + DISCOVERY_S
    while time.monotonic() < end_s and (
        all(is_hidden(name) for name in seen[0]) or time.monotonic() - since_s < _QUIET_S
    ):
        rclpy.spin_once(node, timeout_sec=0.1)
        if (new := graph()) != seen:
            seen, since_s = new, time.monotonic()
    return ask()


def result_of(node: Node, future: Future[Any], what: str, timeout_s: float | None = None) -> Any:
    """Spin until the future is done and return its result; CommandError when it does not come."""
    if not wait_until(node, future.done, timeout_s):
        raise CommandError(f"no answer from {what} within {timeout_s} s")
    return future.result()


def call(node: Node, service_type: Any, name: str, request: Any, timeout_s: float = 10.0) -> Any:
    """Call a service and return its response; CommandError when it is not there or does not answer."""
    client: Client[Any, Any] = node.create_client(service_type, name)
    if not wait_until(node, client.service_is_ready):
        raise CommandError(f"service '{name}' is not available")
    return result_of(node, client.call_async(request), f"service '{name}'", timeout_s)


def absolute(name: str) -> str:
    """Return the name with a leading '/'."""
    return name if name.startswith("/") else f"/{name}"


def is_hidden(name: str) -> bool:
    """Return whether a part of the name starts with '_'."""
    return any(part.startswith("_") for part in name.split("/"))


def print_names(names_and_types: list[tuple[str, list[str]]], with_types: bool) -> None:
    """Print one name per line, hidden ones left out."""
    for name, types in sorted(names_and_types):
        if not is_hidden(name):
            print(f"{name} [{', '.join(types)}]" if with_types else name)

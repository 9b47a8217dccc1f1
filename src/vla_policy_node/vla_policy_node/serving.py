"""A node in; served until SIGINT or SIGTERM, and then still able to publish its last words."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vla_policy.errors import VlaError

WAKE_S = 0.1  # how soon a signal is heard
EXIT_REFUSED = 2  # exit code for a parameter or contract that cannot be used

AnyNode = TypeVar("AnyNode", bound=Node)


def serve_until_signal(executor: Executor, ended: Callable[[], bool] = lambda: False) -> None:
    """Serve until SIGINT or SIGTERM, or until `ended()`.

    Call rclpy.init with SignalHandlerOptions.NO: rclpy's own handlers close every publisher first.
    """
    leaving: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: leaving.append(received))
    while not leaving and not ended():
        executor.spin_once(timeout_sec=WAKE_S)


def run_node(name: str, make: Callable[[], AnyNode], serve: Callable[[AnyNode, Executor], None] | None = None) -> None:
    """Make a node, serve it until a signal (or until `serve` returns), `shut_down` it and leave.

    With exit code EXIT_REFUSED and one line where it cannot start.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    code = 0
    try:
        node = make()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if serve is None:
            serve_until_signal(executor)
        else:
            serve(node, executor)
        node.shut_down()
        executor.shutdown()
        node.destroy_node()
    except (VlaError, ParameterException) as problem:
        rclpy.logging.get_logger(name).fatal(str(problem))
        code = EXIT_REFUSED
    except KeyboardInterrupt:
        rclpy.logging.get_logger(name).info("interrupted before it was ready")
    finally:
        rclpy.try_shutdown()
    sys.exit(code)

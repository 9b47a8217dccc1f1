"""An executor in; its nodes served until SIGINT or SIGTERM, and then still able to publish their last words."""

from __future__ import annotations

import signal
from collections.abc import Callable

from rclpy.executors import Executor

WAKE_S = 0.1  # how soon a signal is heard


def serve_until_signal(executor: Executor, ended: Callable[[], bool] = lambda: False) -> None:
    """Serve until SIGINT or SIGTERM, or until `ended()`.

    Call rclpy.init with SignalHandlerOptions.NO: rclpy's own handlers close every publisher first.
    """
    leaving: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: leaving.append(received))
    while not leaving and not ended():
        executor.spin_once(timeout_sec=WAKE_S)

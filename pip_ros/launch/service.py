"""In: a launch description. Out: its processes run until they end or the launch is told to; an exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from .action import LaunchContext, LaunchDescription, visit
from .events import Event, Shutdown

_log = logging.getLogger("launch")


def _start_logging() -> Path:
    """Print and write to a file '[LEVEL] [name]: message' and the lines of processes; return the folder."""
    base = Path(
        os.environ.get("ROS_LOG_DIR") or Path(os.environ.get("ROS_HOME") or Path.home() / ".ros") / "log"
    )
    folder = base / f"{time.strftime('%Y-%m-%d-%H-%M-%S')}-{socket.gethostname()}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    screen = logging.StreamHandler(sys.stdout)
    screen.addFilter(lambda record: record.name != "launch.output.log")
    file = logging.FileHandler(folder / "launch.log")
    for handler in (screen, file):
        handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[screen, file], force=True)
    return folder


class _Formatter(logging.Formatter):
    """Lines of processes as they are, all else with level and name."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message alone for `launch.output…` records, else `[LEVEL] [logger]: message`."""
        text = record.getMessage()
        return (
            text
            if record.name.startswith("launch.output")
            else f"[{record.levelname}] [{record.name}]: {text}"
        )


class LaunchService:
    """Runs launch descriptions in the main thread.

    Exit code as of the genuine one: 0 when everything ended or the launch was told to end, whatever the
    processes returned; 1 when an action or event handler raised or a SIGTERM came.
    """

    def __init__(
        self, *, argv: Iterable[str] | None = None, noninteractive: bool = False, debug: bool = False
    ) -> None:
        self.context = LaunchContext(argv=argv or ())
        self.context.start = self._start
        self._debug = debug
        self._descriptions: list[LaunchDescription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._return_code = 0

    def include_launch_description(self, launch_description: LaunchDescription) -> None:
        """Add a description; it is visited when the service runs."""
        self._descriptions.append(launch_description)

    def run(self) -> int:
        """Run until all has ended; return the exit code."""
        folder = _start_logging()
        _log.info("All log files can be found below %s", folder)
        return asyncio.run(self._run())

    async def _run(self) -> int:
        wake = asyncio.Event()
        self.context.wake = wake.set
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        for description in self._descriptions:
            self._guarded(visit, description, self.context)
        while self._tasks or self.context.pending_events:
            while self.context.pending_events:
                self._guarded(self._handle, self.context.pending_events.pop(0))
            if self._tasks:
                await wake.wait()
                wake.clear()
            elif not self.context.is_shutdown and not self.context.pending_events:
                self.context.emit_event_sync(Shutdown(reason="idle"))
        return self._return_code

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine of an action; the launch is not idle before it ends."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_ended)
        return task

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._guarded(task.result)
        self.context.wake()

    def _on_signal(self, number: signal.Signals) -> None:
        if self.context.is_shutdown:
            _log.warning("user interrupted with %s again, ignoring...", number.name)
            return
        _log.warning(
            "user interrupted with ctrl-c (SIGINT)" if number is signal.SIGINT else f"got {number.name}"
        )
        if number is not signal.SIGINT:
            self._return_code = 1
        self.context.emit_event_sync(Shutdown(reason=number.name, due_to_sigint=number is signal.SIGINT))

    def _handle(self, event: Event) -> None:
        """Visit what the event's handlers ask for."""
        if isinstance(event, Shutdown):
            if self.context.is_shutdown:
                return
            self.context.is_shutdown = True
            _log.debug("shutting down: %s", event.reason)
        self.context.current_event = event
        for handler in list(self.context.event_handlers):
            if handler.matcher(event):
                if handler.handle_once:
                    self.context.event_handlers.remove(handler)
                for entity in handler.handle(event, self.context):
                    visit(entity, self.context)

    def _guarded(self, function: Callable[..., Any], *args: Any) -> None:
        """Call; an exception ends the launch with exit code 1. Launch files may raise anything."""
        try:
            function(*args)
        except Exception as error:
            _log.error(
                "Caught exception in launch (see debug for traceback): %s", error, exc_info=self._debug
            )
            self._return_code = 1
            self.context.emit_event_sync(Shutdown(reason=str(error)))

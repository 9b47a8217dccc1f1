"""In: a process of the launch. Out: the events of its life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._refuse import missing_names
from . import Event

if TYPE_CHECKING:
    from ..actions import ExecuteProcess


class ProcessStarted(Event):
    """A process runs."""

    def __init__(self, *, action: ExecuteProcess, name: str, cmd: list[str], pid: int) -> None:
        self.action = action
        self.process_name = name
        self.cmd = cmd
        self.pid = pid


class ProcessExited(ProcessStarted):
    """A process has ended; a return code below zero is the signal that ended it."""

    def __init__(
        self, *, action: ExecuteProcess, name: str, cmd: list[str], pid: int, returncode: int
    ) -> None:
        super().__init__(action=action, name=name, cmd=cmd, pid=pid)
        self.returncode = returncode


__all__ = ["ProcessExited", "ProcessStarted"]
__getattr__ = missing_names("launch.events.process", __all__)

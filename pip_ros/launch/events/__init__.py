"""In: what happens during a launch. Out: events, and the base of the handlers that hear them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .._refuse import missing_names

if TYPE_CHECKING:
    from ..action import LaunchContext


class Event:
    """Something that happened."""


class Shutdown(Event):
    """The launch shall end."""

    def __init__(self, *, reason: str = "reason not given", due_to_sigint: bool = False) -> None:
        self.reason = reason
        self.due_to_sigint = due_to_sigint


class EventHandler:
    """Turns events that `matcher` accepts into actions: a list, or a function (event, context) -> list."""

    def __init__(
        self, *, matcher: Callable[[Event], bool], entities: Any = None, handle_once: bool = False
    ) -> None:
        self.matcher = matcher
        self.entities = entities
        self.handle_once = handle_once

    def handle(self, event: Event, context: LaunchContext) -> list[Any]:
        """Return the actions to visit."""
        result: Any | None = self.entities
        if callable(result):
            result = result(event, context)
        if result is None:
            return []
        return list(result) if isinstance(result, Iterable) else [result]


from . import process  # noqa: E402, F401

__all__ = ["Event", "Shutdown", "process"]
__getattr__ = missing_names("launch.events", __all__)

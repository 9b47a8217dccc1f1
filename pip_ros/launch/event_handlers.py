"""In: an event of the launch. Out: the actions to take then."""

from __future__ import annotations

from typing import Any

from ._refuse import missing_names, strict_keywords
from .action import Action
from .events import Event, EventHandler, Shutdown
from .events.process import ProcessExited, ProcessStarted


def _of(target: Action | None, kind: type[Event]) -> Any:
    return lambda event: type(event) is kind and (target is None or getattr(event, "action", None) is target)


@strict_keywords
class OnProcessStart(EventHandler):
    """When `target_action` (or any process) has started."""

    def __init__(
        self, *, target_action: Action | None = None, on_start: Any, handle_once: bool = False
    ) -> None:
        super().__init__(
            matcher=_of(target_action, ProcessStarted), entities=on_start, handle_once=handle_once
        )


@strict_keywords
class OnProcessExit(EventHandler):
    """When `target_action` (or any process) has ended."""

    def __init__(
        self, *, target_action: Action | None = None, on_exit: Any, handle_once: bool = False
    ) -> None:
        super().__init__(matcher=_of(target_action, ProcessExited), entities=on_exit, handle_once=handle_once)


@strict_keywords
class OnShutdown(EventHandler):
    """When the launch is about to end."""

    def __init__(self, *, on_shutdown: Any, handle_once: bool = False) -> None:
        super().__init__(matcher=_of(None, Shutdown), entities=on_shutdown, handle_once=handle_once)


__all__ = ["OnProcessExit", "OnProcessStart", "OnShutdown"]
__getattr__ = missing_names("launch.event_handlers", __all__)

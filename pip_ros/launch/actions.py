"""In: what a launch file wants done. Out: actions that do it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ._refuse import missing_names, strict_keywords
from .action import (
    Action,
    Condition,
    LaunchContext,
    SomeSubstitutionsType,
    describe,
    perform,
    visit,
)
from .event_handlers import OnShutdown
from .events import Event, EventHandler
from .events import Shutdown as ShutdownEvent
from .events.process import ProcessExited
from .launch_description_sources import LaunchDescriptionSource
from .process import ExecuteProcess
from .substitutions import SubstitutionFailure

_log = logging.getLogger("launch")
_Pairs = Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]]


@strict_keywords
class DeclareLaunchArgument(Action):
    """An argument of the launch file, given as name:=value."""

    def __init__(
        self,
        name: str,
        *,
        default_value: SomeSubstitutionsType | None = None,
        description: str | None = None,
        choices: list[str] | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        if choices is not None and isinstance(default_value, str) and default_value not in choices:
            raise RuntimeError(
                f'Provided default_value "{default_value}" is not in provided choices "{choices}".'
            )
        self.name = name
        self.default_value = default_value
        self.choices = choices
        self.description = description or (
            "no description given" if choices is None else f"One of: {choices}"
        )
        if description is not None and choices is not None:
            self.description += ("" if description.endswith(".") else ".") + f" Valid choices are: {choices}"

    def execute(self, context: LaunchContext) -> None:
        """Set the argument to its default unless it was given. Raises: RuntimeError where there is neither, or for a
        value that is not among `choices`.
        """
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(f'Required launch argument "{self.name}" was not provided.')
            context.launch_configurations[self.name] = perform(context, self.default_value)
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(
                f'Argument "{self.name}" provided value "{value}" is not valid. '
                f"Valid options are: {self.choices}"
            )

    def describe(self) -> str:
        """Return the lines of --show-args."""
        star = "*" if self.condition is not None else ""
        default = "" if self.default_value is None else f"\n        (default: {describe(self.default_value)})"
        return f"\n    '{self.name}':{star}\n        {self.description}{default}"


@strict_keywords
class SetLaunchConfiguration(Action):
    """Set the value behind LaunchConfiguration(name)."""

    def __init__(
        self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, condition: Condition | None = None
    ) -> None:
        super().__init__(condition=condition)
        self.name = name
        self.value = value

    def execute(self, context: LaunchContext) -> None:
        """Store the value under the name, replacing what an argument or an earlier action set."""
        context.launch_configurations[perform(context, self.name)] = perform(context, self.value)


@strict_keywords
class SetEnvironmentVariable(Action):
    """Set an environment variable for the processes that start after it."""

    def __init__(
        self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, condition: Condition | None = None
    ) -> None:
        super().__init__(condition=condition)
        self.name = name
        self.value = value

    def execute(self, context: LaunchContext) -> None:
        """Change the launch's own copy of the environment, not that of this Python process."""
        context.environment[perform(context, self.name)] = perform(context, self.value)


@strict_keywords
class UnsetEnvironmentVariable(Action):
    """Remove an environment variable for the processes that start after it."""

    def __init__(self, name: SomeSubstitutionsType, *, condition: Condition | None = None) -> None:
        super().__init__(condition=condition)
        self.name = name

    def execute(self, context: LaunchContext) -> None:
        """Drop the name from the launch's own copy of the environment; a name that is not there is no error."""
        context.environment.pop(perform(context, self.name), None)


@strict_keywords
class IncludeLaunchDescription(Action):
    """Run another launch file here, with arguments."""

    def __init__(
        self,
        launch_description_source: LaunchDescriptionSource | SomeSubstitutionsType,
        *,
        launch_arguments: _Pairs | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        if not isinstance(launch_description_source, LaunchDescriptionSource):
            launch_description_source = LaunchDescriptionSource(launch_description_source)
        self.source = launch_description_source
        self.launch_arguments = list(launch_arguments or [])

    def execute(self, context: LaunchContext) -> None:
        """Load the file, set the given arguments, then visit its actions with `context` reading that file."""
        with context.reading(self.source.path(context)):
            description = self.source.get_launch_description(context)
            given = {perform(context, name): perform(context, value) for name, value in self.launch_arguments}
            context.launch_configurations.update(given)
            visit(description, context)

    def sub_actions(self) -> list[Any] | None:
        """Return the included description, loaded in an empty context; None where that needs a running launch."""
        try:
            return [self.source.get_launch_description(LaunchContext())]
        except (SubstitutionFailure, OSError, LookupError):
            return None  # the path needs values that only a running launch has


@strict_keywords
class GroupAction(Action):
    """Run actions together; configurations and environment set inside stay inside unless scoped=False."""

    def __init__(
        self,
        actions: Iterable[Action],
        *,
        scoped: bool = True,
        launch_configurations: Mapping[SomeSubstitutionsType, SomeSubstitutionsType] | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        self.actions = list(actions)
        self.scoped = scoped
        self.launch_configurations = dict(launch_configurations or {})

    def execute(self, context: LaunchContext) -> None:
        """Set the group's configurations and visit its actions; a scoped group then restores both dictionaries."""
        before = dict(context.launch_configurations), dict(context.environment)
        for name, value in self.launch_configurations.items():
            context.launch_configurations[perform(context, name)] = perform(context, value)
        for action in self.actions:
            visit(action, context)
        if self.scoped:
            context.launch_configurations, context.environment = before

    def sub_actions(self) -> list[Any]:
        """Return the actions of the group, scoped or not."""
        return self.actions


@strict_keywords
class OpaqueFunction(Action):
    """Call function(context, *args, **kwargs); it returns actions or None."""

    def __init__(
        self,
        *,
        function: Callable[..., list[Any] | None],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        self.function = function
        self.args = tuple(args or ())
        self.kwargs = dict(kwargs or {})

    def execute(self, context: LaunchContext) -> list[Any] | None:
        """Call the function; the actions that it returns are visited next."""
        return self.function(context, *self.args, **self.kwargs)

    def sub_actions(self) -> None:
        """Return None: what the function will return is only known at run time."""
        return None


@strict_keywords
class LogInfo(Action):
    """Print a message."""

    def __init__(self, *, msg: SomeSubstitutionsType, condition: Condition | None = None) -> None:
        super().__init__(condition=condition)
        self.msg = msg

    def execute(self, context: LaunchContext) -> None:
        """Log the message as INFO of `launch.user`."""
        logging.getLogger("launch.user").info(perform(context, self.msg))


@strict_keywords
class EmitEvent(Action):
    """Emit an event."""

    def __init__(self, *, event: Event, condition: Condition | None = None) -> None:
        super().__init__(condition=condition)
        self.event = event

    def execute(self, context: LaunchContext) -> None:
        """Queue the event for the handlers of the launch."""
        context.emit_event_sync(self.event)


@strict_keywords
class Shutdown(Action):
    """End the launch; as `on_exit` of a process it makes that process a required one."""

    def __init__(self, *, reason: str = "reason not given", condition: Condition | None = None) -> None:
        super().__init__(condition=condition)
        self.reason = reason

    def execute(self, context: LaunchContext) -> None:
        """Queue a shutdown event with the reason; after a process has exited, also log that it was required."""
        event = context.current_event
        if isinstance(event, ProcessExited):
            _log.info("process[%s] was required: shutting down launched system", event.process_name)
        context.emit_event_sync(ShutdownEvent(reason=self.reason))


@strict_keywords
class RegisterEventHandler(Action):
    """Hear events from now on."""

    def __init__(self, event_handler: EventHandler, *, condition: Condition | None = None) -> None:
        super().__init__(condition=condition)
        self.event_handler = event_handler

    def execute(self, context: LaunchContext) -> None:
        """Add the handler to those of the launch; events handled before do not reach it."""
        context.register_event_handler(self.event_handler)


@strict_keywords
class TimerAction(Action):
    """Run actions after `period` seconds, unless the launch ends before."""

    def __init__(
        self,
        *,
        period: float | SomeSubstitutionsType,
        actions: Iterable[Action],
        condition: Condition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        self.period = period
        self.actions = list(actions)

    def execute(self, context: LaunchContext) -> None:
        """Start the timer [s] and return at once; a shutdown of the launch cancels it."""
        period_s = float(
            self.period if isinstance(self.period, (int, float)) else perform(context, self.period)
        )
        task = context.start(self._fire(context, period_s))
        context.register_event_handler(
            OnShutdown(on_shutdown=lambda event, context: [] if task.cancel() else [])
        )

    async def _fire(self, context: LaunchContext, period_s: float) -> None:
        await asyncio.sleep(period_s)
        for action in self.actions:
            visit(action, context)

    def sub_actions(self) -> list[Any]:
        """Return the actions that the timer will visit."""
        return self.actions


__all__ = [
    "Action",
    "DeclareLaunchArgument",
    "EmitEvent",
    "ExecuteProcess",
    "GroupAction",
    "IncludeLaunchDescription",
    "LogInfo",
    "OpaqueFunction",
    "RegisterEventHandler",
    "SetEnvironmentVariable",
    "SetLaunchConfiguration",
    "Shutdown",
    "TimerAction",
    "UnsetEnvironmentVariable",
]
__getattr__ = missing_names("launch.actions", __all__)

"""In: nothing. Out: the nouns of launch: context, substitution, condition, action, launch description."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .actions import DeclareLaunchArgument
    from .events import Event, EventHandler


class LaunchContext:
    """What substitutions and actions see: launch configurations, environment, the file that is being read.

    `start` and `wake` are set by the running LaunchService: `start` takes a coroutine that must end before
    the launch counts as idle and returns its task, `wake` tells that an event waits.
    """

    def __init__(self, argv: Iterable[str] = ()) -> None:
        self.argv = list(argv)
        self.launch_configurations: dict[str, Any] = {}
        self.environment: dict[str, str] = dict(os.environ)
        self.launch_file: Path | None = None
        self.is_shutdown = False
        self.current_event: Event | None = None
        self.event_handlers: list[EventHandler] = []
        self.pending_events: list[Event] = []
        self.start: Callable[[Any], Any] = _not_running
        self.wake: Callable[[], None] = lambda: None

    def perform_substitution(self, value: SomeSubstitutionsType) -> str:
        """Return the text of one substitution or a list of them."""
        return perform(self, value)

    def register_event_handler(self, handler: EventHandler) -> None:
        """Hear events from now on; the handler that came last is asked first."""
        self.event_handlers.insert(0, handler)

    def emit_event_sync(self, event: Event) -> None:
        """Queue an event."""
        self.pending_events.append(event)
        self.wake()

    @contextmanager
    def reading(self, launch_file: Path) -> Iterator[None]:
        """Within: `ThisLaunchFile` and `ThisLaunchFileDir` mean this file."""
        before, self.launch_file = self.launch_file, launch_file
        yield
        self.launch_file = before


def _not_running(coroutine: Any) -> None:
    coroutine.close()
    raise RuntimeError("got a process or timer outside of a launch, expected a running LaunchService")


class Substitution:
    """Something that becomes text when the launch runs."""

    def perform(self, context: LaunchContext) -> str:
        """Return the text."""
        raise NotImplementedError(type(self).__name__)

    def describe(self) -> str:
        """Return the text that --show-args prints for it."""
        return f"{type(self).__name__}()"


SomeSubstitutionsType = str | Path | Substitution | Iterable[str | Substitution]


def perform(context: LaunchContext, value: SomeSubstitutionsType) -> str:
    """Return the text of a string, a path, a substitution or a list of them (concatenated)."""
    if isinstance(value, Substitution):
        return value.perform(context)
    if isinstance(value, (str, Path)):
        return str(value)
    if isinstance(value, Iterable):
        return "".join(perform(context, part) for part in value)
    raise TypeError(
        f"got {value!r} ({type(value).__name__}), expected a string, a path, a substitution or a list of them"
    )


def describe(value: SomeSubstitutionsType) -> str:
    """Return what --show-args prints for a value."""
    if isinstance(value, Substitution):
        return value.describe()
    if isinstance(value, (str, Path)):
        return f"'{value}'"
    return " + ".join(describe(part) for part in value)


class Condition:
    """Decides whether an action is executed."""

    def __init__(self, *, predicate: Callable[[LaunchContext], bool]) -> None:
        self._predicate = predicate

    def evaluate(self, context: LaunchContext) -> bool:
        """Return whether the action is executed."""
        return self._predicate(context)


class Action:
    """One step of a launch description."""

    def __init__(self, *, condition: Condition | None = None) -> None:
        self.condition = condition

    def execute(self, context: LaunchContext) -> list[Any] | None:
        """Do it; return actions that shall be visited next."""
        raise NotImplementedError(type(self).__name__)

    def sub_actions(self) -> list[Any] | None:
        """Return the actions inside, for --show-args; None where they are only known at run time."""
        return []


class LaunchDescription:
    """The list of actions that a launch file returns."""

    def __init__(self, initial_entities: Iterable[Any] | None = None) -> None:
        self.entities: list[Any] = list(initial_entities or [])

    def sub_actions(self) -> list[Any]:
        """Return the actions inside."""
        return self.entities

    def add_action(self, action: Any) -> None:
        """Append an action."""
        self.entities.append(action)

    def add_entity(self, entity: Any) -> None:
        """Append an action or another launch description."""
        self.entities.append(entity)

    def get_launch_arguments(self) -> list[DeclareLaunchArgument]:
        """Return the arguments declared here and in included files, the first declaration of each name."""
        return self.declared_arguments()[0]

    def declared_arguments(self) -> tuple[list[DeclareLaunchArgument], bool]:
        """Return the declared arguments, and whether they are all: some files are only known at run time."""
        from .actions import DeclareLaunchArgument

        found: dict[str, DeclareLaunchArgument] = {}
        complete = True

        def collect(entities: Iterable[Any]) -> None:
            """Walk the entities depth first; fill `found`, clear `complete` where an inside is unknown."""
            nonlocal complete
            for entity in entities:
                if isinstance(entity, DeclareLaunchArgument):
                    found.setdefault(entity.name, entity)
                inside = _entity(entity).sub_actions()
                complete = complete and inside is not None
                collect(inside or [])

        collect(self.entities)
        return list(found.values()), complete


def _entity(entity: Any) -> Any:
    """Return the entity; RuntimeError where a launch file put something else into a launch description."""
    if not isinstance(entity, (Action, LaunchDescription)):
        raise RuntimeError(f"got {entity!r} in a launch description, expected an action")
    return entity


def visit(entity: Any, context: LaunchContext) -> None:
    """Execute an action, or all actions of a launch description, and what they return, in order."""
    if isinstance(_entity(entity), LaunchDescription):
        inside = entity.entities
    else:
        runs = entity.condition is None or entity.condition.evaluate(context)
        inside = (entity.execute(context) or []) if runs else []
    for inner in inside:
        visit(inner, context)

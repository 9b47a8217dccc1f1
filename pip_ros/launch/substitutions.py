"""In: values known only when the launch runs. Out: their text."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from ._refuse import missing_names, strict_keywords
from .action import LaunchContext, SomeSubstitutionsType, Substitution, describe, perform


class SubstitutionFailure(Exception):
    """A substitution has no value."""


class TextSubstitution(Substitution):
    """Plain text."""

    def __init__(self, *, text: str) -> None:
        self.text = text

    def perform(self, context: LaunchContext) -> str:
        """Return the text as it was given."""
        return self.text

    def describe(self) -> str:
        """Return the text in quotes."""
        return f"'{self.text}'"


class LaunchConfiguration(Substitution):
    """The value of a launch argument."""

    def __init__(
        self, variable_name: SomeSubstitutionsType, *, default: SomeSubstitutionsType | None = None
    ) -> None:
        self.variable_name = variable_name
        self.default = default

    def perform(self, context: LaunchContext) -> str:
        """Return the value that was set, else the default. Raises: SubstitutionFailure where there is neither."""
        name = perform(context, self.variable_name)
        if name in context.launch_configurations:
            return perform(context, context.launch_configurations[name])
        if self.default is None:
            raise SubstitutionFailure(f"launch configuration '{name}' does not exist")
        return perform(context, self.default)

    def describe(self) -> str:
        """Return `LaunchConfig(name)`, as the genuine --show-args prints it."""
        return f"LaunchConfig({describe(self.variable_name)})"


class PathJoinSubstitution(Substitution):
    """Parts joined with '/'."""

    def __init__(self, substitutions: Iterable[SomeSubstitutionsType]) -> None:
        self.substitutions = list(substitutions)

    def perform(self, context: LaunchContext) -> str:
        """Return the parts joined by the separator of paths; an absolute part drops those before it."""
        return os.path.join(*(perform(context, part) for part in self.substitutions))

    def describe(self) -> str:
        """Return `PathJoin('…')` with the descriptions of the parts joined by ` + `."""
        return f"PathJoin('{' + '.join(describe(part) for part in self.substitutions)}')"


class EnvironmentVariable(Substitution):
    """The value of an environment variable."""

    def __init__(
        self, name: SomeSubstitutionsType, *, default_value: SomeSubstitutionsType | None = None
    ) -> None:
        self.name = name
        self.default_value = default_value

    def perform(self, context: LaunchContext) -> str:
        """Return the value in the launch's environment, else the default. Raises: SubstitutionFailure for neither."""
        name = perform(context, self.name)
        if name in context.environment:
            return context.environment[name]
        if self.default_value is None:
            raise SubstitutionFailure(f"environment variable '{name}' does not exist")
        return perform(context, self.default_value)

    def describe(self) -> str:
        """Return `EnvVar('name')`, without the value."""
        return f"EnvVar({describe(self.name)})"


class PythonExpression(Substitution):
    """The value of a Python expression, as text."""

    def __init__(self, expression: SomeSubstitutionsType) -> None:
        self.expression = expression

    def perform(self, context: LaunchContext) -> str:
        """Evaluate the joined text, with Python's builtins and no other names, and return the result as text."""
        return str(eval(perform(context, self.expression), {}, {}))  # noqa: S307  a launch file is code already

    def describe(self) -> str:
        """Return `PythonExpr(…)` with the parts of the expression, not evaluated."""
        return f"PythonExpr({describe(self.expression)})"


class ThisLaunchFile(Substitution):
    """The path of the launch file that is being read."""

    def perform(self, context: LaunchContext) -> str:
        """Return the path of the file being read. Raises: SubstitutionFailure outside of a launch file."""
        if context.launch_file is None:
            raise SubstitutionFailure("ThisLaunchFile used outside of a launch file")
        return str(context.launch_file)


class ThisLaunchFileDir(Substitution):
    """The folder of the launch file that is being read."""

    def perform(self, context: LaunchContext) -> str:
        """Return the folder of the file being read. Raises: SubstitutionFailure outside of a launch file."""
        if context.launch_file is None:
            raise SubstitutionFailure("ThisLaunchFileDir used outside of a launch file")
        return str(context.launch_file.parent)


class FindExecutable(Substitution):
    """The path of a program on PATH."""

    def __init__(self, *, name: SomeSubstitutionsType) -> None:
        self.name = name

    def perform(self, context: LaunchContext) -> str:
        """Return the executable's path, searched on the PATH of the launch. Raises: SubstitutionFailure."""
        name = perform(context, self.name)
        found = shutil.which(name, path=context.environment.get("PATH"))
        if found is None:
            raise SubstitutionFailure(f"executable '{name}' not found on the PATH")
        return found


_TEXT = (
    TextSubstitution,
    LaunchConfiguration,
    PathJoinSubstitution,
    EnvironmentVariable,
    PythonExpression,
    ThisLaunchFile,
    ThisLaunchFileDir,
    FindExecutable,
)
for _cls in _TEXT:
    strict_keywords(_cls)

__all__ = [cls.__name__ for cls in _TEXT] + ["SubstitutionFailure"]
__getattr__ = missing_names("launch.substitutions", __all__)

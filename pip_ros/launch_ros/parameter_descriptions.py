"""In: parameter values in a launch file. Out: the values that ROS nodes get."""

from __future__ import annotations

from typing import Any

import yaml
from launch._refuse import missing_names, strict_keywords
from launch.action import LaunchContext, SomeSubstitutionsType, Substitution, perform

_ALLOWED = (bool, int, float, str)


@strict_keywords
class ParameterValue:
    """A value with a type: str keeps '5' a string; None reads the text as YAML."""

    def __init__(self, value: Any, *, value_type: type | None = None) -> None:
        if value_type not in (None, *_ALLOWED):
            raise TypeError(
                f"launch stand-in: got value_type={value_type!r}, expected None, bool, int, float or str"
            )
        self.value = value
        self.value_type = value_type

    def evaluate(self, context: LaunchContext) -> Any:
        """Return the value for the node."""
        if not _is_text(self.value):
            return self.value if self.value_type is None else self.value_type(self.value)
        text = perform(context, self.value)
        if self.value_type is str:
            return text
        value = _from_yaml(text, "a parameter value")
        if self.value_type is float and type(value) is int:
            return float(value)
        if self.value_type is not None and type(value) is not self.value_type:
            raise ValueError(f"got '{text}' for a parameter, expected {self.value_type.__name__}")
        return value


@strict_keywords
class ParameterFile:
    """A YAML file of parameters."""

    def __init__(self, param_file: SomeSubstitutionsType) -> None:
        self.param_file = param_file


def evaluate(context: LaunchContext, name: str, value: Any) -> Any:
    """Return the value for the node: substitutions read as YAML, plain values as they are."""
    if isinstance(value, ParameterValue):
        return value.evaluate(context)
    if isinstance(value, _ALLOWED):
        return value
    if isinstance(value, Substitution) or _is_mixed_text(value):
        return _from_yaml(perform(context, value), name)
    if isinstance(value, (list, tuple)):
        items = [evaluate(context, name, item) for item in value]
        if {type(item) for item in items} == {int, float}:
            items = [float(item) for item in items]
        return _checked(items, name)
    raise TypeError(
        f"got {value!r} for parameter {name!r}, expected bool, int, float, str, a substitution or a list"
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, Substitution)) or _is_mixed_text(value)


def _is_mixed_text(value: Any) -> bool:
    """Strings and at least one substitution in a list are one text, put together."""
    return (
        isinstance(value, (list, tuple))
        and any(isinstance(part, Substitution) for part in value)
        and all(isinstance(part, (str, Substitution)) for part in value)
    )


def _from_yaml(text: str, name: str) -> Any:
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise TypeError(
            f"Unable to parse the value of parameter {name} as yaml. If the parameter is meant to be a "
            "string, try wrapping it in launch_ros.parameter_descriptions.ParameterValue(value, "
            "value_type=str)"
        ) from error
    return _checked(value, name)


def _checked(value: Any, name: str) -> Any:
    """Return the value if ROS has a parameter type for it."""
    items = value if isinstance(value, list) else [value]
    if not items or type(items[0]) not in _ALLOWED or len({type(item) for item in items}) != 1:
        raise TypeError(
            f"got {value!r} for parameter {name!r}, expected bool, int, float, str or a non-empty list of "
            "one of them; for a string use ParameterValue(value, value_type=str)"
        )
    return value


__all__ = ["ParameterFile", "ParameterValue"]
__getattr__ = missing_names("launch_ros.parameter_descriptions", __all__)

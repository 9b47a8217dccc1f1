"""In: type names, YAML and messages. Out: message classes, filled messages, YAML."""

from __future__ import annotations

import array
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml
from rosidl_parser.definition import AbstractNestedType, NamespacedType

from .main import CommandError


def interface(text: str, kind: str) -> Any:
    """Return the class of 'package/kind/Name' or 'package/Name'; kind is msg, srv or action."""
    parts = text.split("/")
    if len(parts) == 2:
        parts.insert(1, kind)
    try:
        if len(parts) != 3 or parts[1] != kind:
            raise ValueError(text)
        return getattr(importlib.import_module(f"{parts[0]}.{kind}"), parts[2])
    except (AttributeError, ModuleNotFoundError, ValueError) as error:
        raise CommandError(
            f"The passed {kind} type is invalid: got '{text}', expected something like "
            f"'std_msgs/msg/String' (package/{kind}/Name) of an installed package"
        ) from error


def to_yaml(message: Any, *, truncate: int | None = None, no_arrays: bool = False) -> str:
    """Return the message as block-style YAML in the order of its fields."""
    return yaml.dump(
        _plain(message, truncate, no_arrays),
        sort_keys=False,
        allow_unicode=True,
        width=sys.maxsize,
        default_flow_style=False,
    )


def _plain(value: Any, truncate: int | None, no_arrays: bool) -> Any:
    """Return dicts, lists and scalars for a message or a field of one."""
    if hasattr(value, "get_fields_and_field_types"):
        types = value.get_fields_and_field_types()
        return {
            name: f"<{types[name]}, length: {len(getattr(value, name))}>"
            if no_arrays and isinstance(getattr(value, name), (list, array.array, np.ndarray))
            else _plain(getattr(value, name), truncate, no_arrays)
            for name in types
        }
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        return value if truncate is None or len(value) <= truncate else value[:truncate] + "..."
    if isinstance(value, (list, tuple, array.array, np.ndarray)):
        items = [_plain(item, truncate, no_arrays) for item in value[:truncate]]
        return items if truncate is None or len(value) <= truncate else [*items, "..."]
    return value.item() if isinstance(value, np.generic) else value


def filled(message: Any, text: str) -> Any:
    """Return the message with the fields that a YAML text gives; CommandError names what does not fit."""
    try:
        _fill(message, yaml.safe_load(text) or {})
    except (AttributeError, TypeError, ValueError, AssertionError, OverflowError, yaml.YAMLError) as error:
        fields = ", ".join(f"{name}: {kind}" for name, kind in message.get_fields_and_field_types().items())
        raise CommandError(f"Failed to populate field: {error}; expected YAML for {{{fields}}}") from error
    return message


def _fill(message: Any, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise TypeError(f"got {values!r} for a {type(message).__name__}, expected a mapping")
    kinds = dict(zip(message.get_fields_and_field_types(), message.SLOT_TYPES, strict=True))
    for name, value in values.items():
        old = getattr(message, name)
        kind = kinds[name]
        if isinstance(kind, AbstractNestedType) and isinstance(kind.value_type, NamespacedType):
            item_type = interface("/".join(kind.value_type.namespaced_name()), "msg")
            new: Any = []
            for item in value:
                new.append(item_type())
                _fill(new[-1], item)
        elif isinstance(kind, NamespacedType):
            new = type(old)()
            _fill(new, value)
        elif isinstance(old, array.array):
            new = array.array(old.typecode, value)
        elif isinstance(old, np.ndarray):
            new = np.array(value, dtype=old.dtype)
        else:
            new = value if isinstance(value, type(old)) else type(old)(value)
        setattr(message, name, new)

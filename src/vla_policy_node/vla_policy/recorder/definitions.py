"""The name of a message type in, its definition out, as the ROS packages on this machine install it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from vla_policy.errors import ConfigError

_HEADER = "std_msgs/Header "


@dataclass(frozen=True, slots=True)
class Definition:
    """A message type. text: its fields and those of all types in it, as bags hold them. type_hash: RIHS01_…."""

    type: str
    text: str
    type_hash: str

    @property
    def has_header(self) -> bool:
        """Whether its messages begin with a std_msgs/Header, and so with a stamp."""
        return self.text.startswith(_HEADER)


@cache
def definition_of(kind: str) -> Definition:
    """The definition of `package/msg/Name`. Raises: ConfigError where it, or a type in it, is not installed."""
    found: dict[str, Any] = {}
    missing = [kind]
    try:
        while missing:
            name = missing.pop()
            if name not in found:
                found.update(get_types_from_msg(source_of(name, kind), name))
                missing += _named_in(found[name])
        store = get_typestore(Stores.EMPTY)
        store.register(found)
        return Definition(kind, store.generate_msgdef(kind, ros_version=2)[0], store.hash_rihs01(kind))
    except TypesysError as problem:
        raise ConfigError(f"message type {kind}: its definition cannot be read: {problem}; repair or leave out its "
                          "package") from None


def definition_from(kind: str, text: str) -> Definition:
    """The definition that a bag holds as `text`; where that is of no use, the installed one. Raises: ConfigError."""
    if not text:
        return definition_of(kind)
    try:
        store = get_typestore(Stores.EMPTY)
        store.register(get_types_from_msg(text, kind))
        return Definition(kind, text, store.hash_rihs01(kind))
    except (TypesysError, KeyError):
        return definition_of(kind)


def source_of(name: str, wanted: str) -> str:
    """The text of the type's .msg file, installed or beside these sources. wanted: the type it is for.

    Raises: ConfigError where there is none.
    """
    parts = re.fullmatch(r"(\w+)/msg/(\w+)", name)
    if parts is None:
        raise ConfigError(f"message type '{name}': expected package/msg/Name")
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    places = [*(Path(prefix) / "share" for prefix in prefixes), Path(__file__).resolve().parents[3]]
    for place in places:
        file = place / parts[1] / "msg" / f"{parts[2]}.msg"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    inside = "" if name == wanted else f", a part of {wanted},"
    raise ConfigError(f"message type {name}{inside} is not installed: got no share/{parts[1]}/msg/{parts[2]}.msg in "
                      f"AMENT_PREFIX_PATH ({os.pathsep.join(prefixes) or 'empty'}); source the workspace that has it")


def _named_in(fields: Any) -> list[str]:
    """Types that a parsed definition names: its own fields' and those of its arrays."""
    return re.findall(r"'(\w+/msg/\w+)'", repr(fields))

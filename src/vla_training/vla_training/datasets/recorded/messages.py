"""Fields in, ROS messages as rosbags makes and serialises them out: for writing bags without ROS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from vla_policy.errors import ConfigError
from vla_policy.types import NS_PER_S

OUR_MESSAGES = "vla_msgs/msg"


@cache
def types() -> Typestore:
    """ROS's types and ours, from their definitions. Raises: ConfigError where ours are not there."""
    folder = next((folder for folder in _definition_folders() if folder.is_dir()), None)
    if folder is None:
        raise ConfigError(f"{OUR_MESSAGES}: no such definitions in a prefix of AMENT_PREFIX_PATH or beside the sources; "
                          "writing bags needs them: source the workspace, or work from a checkout")
    store = get_typestore(Stores.ROS2_KILTED)
    for file in sorted(folder.glob("*.msg")):
        store.register(get_types_from_msg(file.read_text(encoding="utf-8"), f"{OUR_MESSAGES}/{file.stem}"))
    return store


def make(kind: str, **fields: Any) -> Any:
    """A message; its header, where it has one, from `stamp_ns` and `frame_id`."""
    if "stamp_ns" in fields:
        fields["header"] = make("std_msgs/msg/Header", stamp=time(fields.pop("stamp_ns")),
                                frame_id=fields.pop("frame_id", ""))
    return types().types[kind](**fields)


def time(stamp_ns: int) -> Any:
    """A Time message."""
    return make("builtin_interfaces/msg/Time", sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S)


def _definition_folders() -> Iterator[Path]:
    """Where `OUR_MESSAGES` may lie: installed, then in the sources."""
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(prefix) / "share" / OUR_MESSAGES
    yield Path(__file__).resolve().parents[4] / OUR_MESSAGES

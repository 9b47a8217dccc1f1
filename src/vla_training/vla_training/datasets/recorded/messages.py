"""Fields in, ROS messages as rosbags makes and serialises them out: for writing bags without ROS."""

from __future__ import annotations

from functools import cache
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from vla_policy.recorder.definitions import source_of
from vla_policy.recording import COMMAND_TYPE
from vla_policy.types import NS_PER_S


@cache
def types() -> Typestore:
    """ROS's types and the one of ours that recordings hold. Raises: ConfigError where its definition is not there."""
    store = get_typestore(Stores.ROS2_KILTED)
    store.register(get_types_from_msg(source_of(COMMAND_TYPE, COMMAND_TYPE), COMMAND_TYPE))
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

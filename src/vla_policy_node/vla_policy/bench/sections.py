"""The name of a section in, its function out. One of this package is a line here; other packages announce theirs.

A section takes `Settings` and returns what goes to JSON; its `lines` are printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from vla_policy.bench.cases import Settings
from vla_policy.errors import ConfigError, nearest

GROUP = "vla_policy.bench"  # of entry points, as `ros = vla_policy_node.bench_node:section`
SECTIONS = {
    "loops": "vla_policy.bench.loops:run",
    "stages": "vla_policy.bench.stages:run",
    "floor": "vla_policy.bench.floor:run",
    "scaling": "vla_policy.bench.scaling:run",
}
Section = Callable[[Settings], Mapping[str, Any]]


def announced() -> dict[str, str]:
    """All sections, those of other packages after ours."""
    return SECTIONS | {point.name: point.value for point in entry_points(group=GROUP)}


def find_section(name: str) -> Section:
    """Raises: ConfigError naming the nearest; ImportError where its package lacks something here, e.g. ROS."""
    known = announced()
    if name not in known:
        raise ConfigError(f"section: got '{name}'; {nearest(name, known)}")
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)

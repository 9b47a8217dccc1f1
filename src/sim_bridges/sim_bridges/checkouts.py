"""An environment variable or an installed package in, the folder of somebody else's code out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path


def named_root(variable: str, environment: Mapping[str, str]) -> Path | None:
    """The folder that an environment variable names, whether it is there or not; None where it is not set."""
    given = environment.get(variable, "")
    return Path(given).expanduser().resolve() if given else None


def installed_root(package: str) -> Path | None:
    """The folder around a package that is installed from its sources (`pip install -e`); None where it is not."""
    spec = find_spec(package)
    return Path(spec.origin).resolve().parents[1] if spec is not None and spec.origin else None

"""What is known before the first step in, a JSON file beside the run out: config, data, command, machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from vla_policy.errors import ConfigError, DataError
from vla_training.watch.memory import GIB


def machine_facts(device: torch.device, processes: int) -> dict[str, Any]:
    """What a result depends on besides data and config. device: of this process. processes: that train together."""
    facts = {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "memory": f"{psutil.virtual_memory().total / GIB:.0f} GiB",
        "processes": processes,
        "device": str(device),
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        facts |= {"gpu": f"{card.name}, {card.total_memory / GIB:.0f} GiB", "cuda": str(torch.version.cuda)}
    return facts


def _processor() -> str:
    """The model as Linux names it; elsewhere what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


@contextmanager
def results_at(path: Path) -> Iterator[None]:
    """What cannot be written to the file or folder that a person named is told. Raises: ConfigError."""
    try:
        yield
    except OSError as problem:
        raise ConfigError(
            f"{path}: cannot be written ({problem}); make room, or name another place for the results"
        ) from None


def write_json(path: Path, facts: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a mapping or list, paths and the like as text, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".partial")
    fresh.write_text(json.dumps(facts, indent=1, default=str) + "\n", encoding="utf-8")
    os.replace(fresh, path)


def read_json(path: Path) -> dict[str, Any]:
    """A mapping that `write_json` wrote, empty where there is no file. Raises: DataError for another file."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise DataError(f"{path}: got no JSON ({problem}); delete it") from None

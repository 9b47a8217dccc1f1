"""What it took long to find out about a data set in, kept as JSON beside it until the data changes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = ".vla_index"


def cached_index(root: Path, name: str, fingerprint: str, build: Callable[[], Any]) -> Any:
    """What `build` returns (anything that JSON takes), built once for a data set and fingerprint.

    It lies in `root`/.vla_index or, where that cannot be written, in $XDG_CACHE_HOME/vla_training,
    ~/.cache/vla_training by default.
    An index that cannot be read is built anew.
    """
    file = f"{name}-{fingerprint[:32]}.json"
    places = [root / FOLDER / file, cache_home() / "index" / file]
    for place in places:
        try:
            return json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    index = build()
    for place in places:
        if _write(place, name, json.dumps(index)):
            break
    return index


def cache_home() -> Path:
    """The user's folder for what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla_training"


def _write(place: Path, name: str, text: str) -> bool:
    """Write whole or not at all, and drop this name's older indexes; False where the folder cannot be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=place.parent, prefix=f".{name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(scratch, place)
    except OSError:
        return False
    if place.parent.name == FOLDER:
        for old in place.parent.glob(f"{name}-*.json"):
            if old != place:
                old.unlink(missing_ok=True)
    return True

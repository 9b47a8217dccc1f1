"""In: a virtual environment with the ROS wheels. Out: CMake exports that name this Python's own folders.

The wheels name two folders of the machine that built them; CMake fails on folders that are not there.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

_BUILDER = r"/opt/python/cp3\d+-cp3\d+"


def patched(text: str) -> str:
    """Return the text of a CMake file with both dead folders replaced by live ones."""
    text = re.sub(rf"{_BUILDER}/lib/python3\.\d+/site-packages/numpy/_core/include", np.get_include(), text)
    return re.sub(rf"{_BUILDER}/include/python3\.\d+", sysconfig.get_paths()["include"], text)


def main(venv: Path) -> None:
    """Patch every CMake file in the share folder of the environment."""
    for path in (venv / "share").rglob("*.cmake"):
        text = path.read_text()
        if (new := patched(text)) != text:
            path.write_text(new)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

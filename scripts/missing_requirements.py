"""In: requirement files. Out: two files: versions that are installed already, requirements that are not.

For a machine with a ROS distribution: what its Python has stays as it is, only what is missing is installed,
in a version that fits to what is there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

# distributions that Debian packages under another name: the module tells
_MODULES = {"opencv-python-headless": "cv2"}


def requirements(files: list[Path]) -> list[tuple[str, str]]:
    """Return the name and the pinned version of each line `name==version`."""
    lines = [line.partition("#")[0].strip() for file in files for line in file.read_text().splitlines()]
    return [(name, version) for name, _, version in (line.partition("==") for line in lines) if name]


def installed_version(name: str) -> str | None:
    """Return the version of a distribution, '' where only its module is there, None where neither is."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "" if importlib.util.find_spec(_MODULES.get(name, " ")) else None


def main(kept_file: Path, missing_file: Path, files: list[Path]) -> None:
    """Write both files. With an older numpy than the pinned one, other pinned versions may not fit: unpin."""
    wanted = requirements(files)
    installed = {name: installed_version(name) for name, _ in wanted}
    numpy_is_pinned = installed.get("numpy") in (None, dict(wanted).get("numpy"))
    kept = [f"{name}=={version}" for name, version in installed.items() if version]
    missing = [
        f"{name}=={version}" if numpy_is_pinned else name
        for name, version in wanted
        if installed[name] is None
    ]
    kept_file.write_text("\n".join(kept) + "\n")
    missing_file.write_text("\n".join(missing) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(file) for file in sys.argv[3:]])

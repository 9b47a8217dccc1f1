"""In: the path of a launch file. Out: the LaunchDescription that it returns."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

from ._refuse import missing_names
from .action import LaunchContext, LaunchDescription, SomeSubstitutionsType, perform


class InvalidPythonLaunchFileError(Exception):
    """The file is not a Python launch file."""


def load_launch_file(path: Path) -> LaunchDescription:
    """Run the launch file and return what its generate_launch_description() returns."""
    if path.suffix != ".py":
        raise InvalidPythonLaunchFileError(
            f"launch stand-in: got '{path}', expected a Python launch file (.launch.py)"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no launch file at '{path}'")
    loader = importlib.machinery.SourceFileLoader("python_launch_file", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    if not hasattr(module, "generate_launch_description"):
        raise InvalidPythonLaunchFileError(
            f"launch file at '{path}' does not contain the required function 'generate_launch_description()'"
        )
    description: LaunchDescription = module.generate_launch_description()
    return description


class LaunchDescriptionSource:
    """A launch file, read when it is needed."""

    def __init__(self, launch_file_path: SomeSubstitutionsType) -> None:
        self._path = launch_file_path
        self._loaded: LaunchDescription | None = None

    def path(self, context: LaunchContext) -> Path:
        """Return the absolute path of the file."""
        return Path(perform(context, self._path)).absolute()

    def get_launch_description(self, context: LaunchContext) -> LaunchDescription:
        """Return what the file describes; it is read once."""
        if self._loaded is None:
            self._loaded = load_launch_file(self.path(context))
        return self._loaded


class PythonLaunchDescriptionSource(LaunchDescriptionSource):
    """A Python launch file."""


class AnyLaunchDescriptionSource(LaunchDescriptionSource):
    """A launch file; here that is a Python one."""


__all__ = [
    "AnyLaunchDescriptionSource",
    "InvalidPythonLaunchFileError",
    "LaunchDescriptionSource",
    "PythonLaunchDescriptionSource",
]
__getattr__ = missing_names("launch.launch_description_sources", __all__)

"""In: `ros2 run …`, `ros2 pkg …`. Out: a running executable, names and folders of installed packages."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_packages_with_prefixes
from launch._refuse import nearest
from launch.substitutions import SubstitutionFailure
from launch_ros.substitutions import find_executable

from .main import CommandError


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 run` or `ros2 pkg`."""
    if command == "run":
        parser.add_argument("package_name")
        parser.add_argument("executable_name")
        parser.add_argument("argv", nargs=argparse.REMAINDER, help="passed to the executable")
        parser.set_defaults(call=run)
        return
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="names of all packages").set_defaults(call=list_packages)
    executables = verbs.add_parser("executables", help="package and name of all executables")
    executables.add_argument("package_name", nargs="?")
    executables.set_defaults(call=list_executables)
    prefix = verbs.add_parser("prefix", help="folder where a package is installed")
    prefix.add_argument("package_name")
    prefix.add_argument("--share", action="store_true", help="its share folder instead")
    prefix.set_defaults(call=print_prefix)


def _prefix(package: str) -> str:
    try:
        return str(get_package_prefix(package))
    except (PackageNotFoundError, ValueError) as error:
        raise CommandError(
            f"Package '{package}' not found{nearest(package, get_packages_with_prefixes())}"
        ) from error


def run(arguments: argparse.Namespace) -> int:
    """Become the executable, so that signals and the exit code are its own."""
    try:
        path = find_executable(
            arguments.package_name, _prefix(arguments.package_name), arguments.executable_name
        )
    except SubstitutionFailure as error:
        raise CommandError(f"No executable found: {error}") from error
    os.execv(path, [path, *arguments.argv])


def list_packages(arguments: argparse.Namespace) -> int:
    """Print the names of all packages."""
    print("\n".join(sorted(get_packages_with_prefixes())))
    return 0


def list_executables(arguments: argparse.Namespace) -> int:
    """Print `package executable` lines."""
    names = [arguments.package_name] if arguments.package_name else sorted(get_packages_with_prefixes())
    for name in names:
        for path in sorted((Path(_prefix(name)) / "lib" / name).glob("*")):
            if path.is_file() and os.access(path, os.X_OK):
                print(name, path.name)
    return 0


def print_prefix(arguments: argparse.Namespace) -> int:
    """Print where a package is installed."""
    prefix = _prefix(arguments.package_name)
    print(Path(prefix) / "share" / arguments.package_name if arguments.share else prefix)
    return 0

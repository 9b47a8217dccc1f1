"""In: `ros2 interface …`. Out: definitions of messages, services and actions, those inside them indented."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from .main import CommandError

_KINDS = ("msg", "srv", "action")
_FIELD = re.compile(r"([A-Za-z]\w*(?:/\w+)?)(?:\[[^\]]*\])?\s+\w+")  # a type, maybe an array of it, and a name
_BUILT_IN = re.compile(r"(u?int(8|16|32|64)|float(32|64)|bool|byte|char|w?string)\b.*")


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 interface`."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    show = verbs.add_parser("show", help="print a definition")
    show.add_argument("type", help="for example std_msgs/msg/String")
    show.add_argument("--all-comments", action="store_true", help="comments of the definitions inside, too")
    show.add_argument("--no-comments", action="store_true", help="no comments and empty lines")
    show.set_defaults(call=show_interface)


def show_interface(arguments: argparse.Namespace) -> int:
    """Print a definition."""
    for line in _lines(arguments.type, not arguments.no_comments, arguments.all_comments, 0):
        print(line)
    return 0


def _lines(name: str, comments: bool, inner_comments: bool, depth: int) -> Iterator[str]:
    file = _definition(name)
    for line in file.read_text(encoding="utf-8").splitlines():
        code = line.partition("#")[0].rstrip()
        if not comments and not code:
            continue
        yield "\t" * depth + (line.rstrip() if comments else code)
        match = _FIELD.match(code)
        if match and not _BUILT_IN.fullmatch(match[1]):
            package, _, inside = match[1].rpartition("/")
            package = package or name.partition("/")[0]
            yield from _lines(f"{package}/msg/{inside}", inner_comments, inner_comments, depth + 1)


def _definition(name: str) -> Path:
    parts = name.split("/")
    if len(parts) == 3 and parts[1] in _KINDS:
        try:
            file = Path(get_package_share_directory(parts[0]), parts[1], f"{parts[2]}.{parts[1]}")
        except (PackageNotFoundError, ValueError):
            raise CommandError(f"Unknown package '{parts[0]}'") from None
        if file.is_file():
            return file
    raise CommandError(f"Could not find the interface '{name}'; expected something like 'std_msgs/msg/String' of an "
                       "installed package")

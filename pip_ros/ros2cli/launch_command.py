"""In: `ros2 launch PACKAGE FILE name:=value …` or `ros2 launch FILE …`. Out: the launch's exit code."""

from __future__ import annotations

import argparse
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch._refuse import nearest
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from .main import CommandError


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 launch`."""
    parser.add_argument(
        "-n", "--noninteractive", action="store_true", help="accepted for the genuine one's sake"
    )
    parser.add_argument("-d", "--debug", action="store_true", help="print tracebacks")
    parser.add_argument(
        "-s",
        "--show-args",
        "--show-arguments",
        action="store_true",
        help="print the arguments of the launch file",
    )
    parser.add_argument(
        "package_name", help="package that holds the launch file, or the path of a launch file"
    )
    parser.add_argument("launch_file_name", nargs="?", help="name of the launch file")
    parser.add_argument("launch_arguments", nargs="*", help="name:=value; the last one wins")
    parser.set_defaults(call=launch)


def launch(arguments: argparse.Namespace) -> int:
    """Run or describe a launch file."""
    words = list(arguments.launch_arguments)
    if Path(arguments.package_name).is_file():
        path = Path(arguments.package_name)
        words = [word for word in (arguments.launch_file_name,) if word is not None] + words
    else:
        path = _find(arguments.package_name, arguments.launch_file_name)
    source = PythonLaunchDescriptionSource(path)
    given = _parse(words)
    service = LaunchService(argv=words, debug=arguments.debug)
    if arguments.show_args:
        _show(source.get_launch_description(service.context))
        return 0
    service.include_launch_description(
        LaunchDescription([_CheckedInclude(source, launch_arguments=given.items())])
    )
    return service.run()


class _CheckedInclude(IncludeLaunchDescription):
    """The file named on the command line: an argument that it does not declare is refused at once.

    The genuine ros2 launch takes any name; where a file or function is only known at run time, so does this.
    """

    def execute(self, context) -> None:  # type: ignore[no-untyped-def]
        """Run the file. Raises: RuntimeError naming the nearest argument for one that the file does not declare."""
        declared, complete = self.source.get_launch_description(context).declared_arguments()
        names = [argument.name for argument in declared]
        for name, _ in self.launch_arguments:
            if complete and name not in names:
                raise RuntimeError(
                    f"got the unknown launch argument '{name}'{nearest(str(name), names)}; "
                    f"{self.source.path(context).name} takes: {', '.join(names) or 'none'}"
                )
        super().execute(context)


def _find(package: str, file_name: str | None) -> Path:
    """Return the path of a launch file in the share folder of a package."""
    if file_name is None:
        raise CommandError(f"got no launch file for '{package}', expected: ros2 launch PACKAGE FILE")
    try:
        share = Path(get_package_share_directory(package))
    except (PackageNotFoundError, ValueError) as error:
        raise CommandError(f"Package '{package}' not found: {error}") from error
    found = [path for path in share.rglob("*.launch.py") if path.name == file_name and path.is_file()]
    if len(found) != 1:
        known = sorted(path.name for path in share.rglob("*.launch.py"))
        raise CommandError(
            f"file '{file_name}' was found {len(found)} times in the share directory of package "
            f"'{package}' ({share}){nearest(file_name, known)}; there are: {', '.join(known) or 'none'}"
        )
    return found[0]


def _parse(words: list[str]) -> dict[str, str]:
    """Return name -> value of words like name:=value; an empty value is an error, as in the genuine one."""
    given: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not (name and separator and value):
            raise CommandError(f"malformed launch argument '{word}', expected format '<name>:=<value>'")
        given[name] = value
    return given


def _show(description: LaunchDescription) -> None:
    print("Arguments (pass arguments as '<name>:=<value>'):")
    declared = description.get_launch_arguments()
    for argument in declared:
        print(argument.describe())
    if not declared:
        print("\n  No arguments.")

"""What launch files share: names and arguments in, actions and refusals in words out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from launch import Action, LaunchContext, SomeSubstitutionsType
from launch.actions import IncludeLaunchDescription, OpaqueFunction, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from vla_policy.errors import ConfigError, nearest

VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
VARIABLE_IN_JAZZY = "FASTRTPS_DEFAULT_PROFILES_FILE"  # Fast DDS 2 knows this name alone, Fast DDS 3 warns of it
SIMS = ("tabletop", "calvin", "simpler", "none")  # none: a real robot
HEADLESS = ("auto", "true", "false")


def include(name: str, **arguments: SomeSubstitutionsType) -> IncludeLaunchDescription:
    """`name`.launch.py of this package with arguments."""
    path = PathJoinSubstitution([FindPackageShare("vla_policy"), "launch", f"{name}.launch.py"])
    return IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=list(arguments.items()))


def console(context: LaunchContext, headless: str, contract: str) -> list[Node]:
    """The window with the cameras and a line to type instructions; none where there is no screen, or none is wanted."""
    if headless == "true" or (headless == "auto" and not context.environment.get("DISPLAY")):
        return []
    return [Node(package="vla_policy", executable="console", name="console", output="screen",
                 parameters=[{"contract": contract}])]


def check_arguments(given: Mapping[str, str], all_configurations: Mapping[str, str],
                    choices: Mapping[str, Sequence[str]], numbers: Sequence[str]) -> None:
    """Raises: ConfigError naming the argument, what it got, and what it takes.

    given: the arguments that there are. choices: what some take. numbers: those that are whole numbers, or empty.
    """
    for name in all_configurations:
        if name not in given:
            raise ConfigError(f"unknown launch argument '{name}'; {nearest(name, given)}")
    for name, allowed in choices.items():
        if given[name] not in allowed:
            raise ConfigError(f"{name}:={given[name]}; {nearest(given[name], allowed)}")
    for name in numbers:
        if given[name] and not given[name].isdecimal():
            raise ConfigError(f"{name}:={given[name]}: expected a whole number, 0 or more")


def check_program(name: str, path: str) -> None:
    """Raises: ConfigError where the argument `name` holds a path that is no program."""
    if path and not os.access(os.path.expanduser(path), os.X_OK):
        raise ConfigError(f"{name}:={path}: no such program; expected a Python, as VENV/bin/python")


def image_transport() -> Action:
    """Shared memory for whole images, unless the user chose a profile; by default most 640x480 images are lost."""
    return OpaqueFunction(function=_set_profile)


def _set_profile(context: LaunchContext) -> list[Action]:
    profile = PathJoinSubstitution([FindPackageShare("vla_policy"), "config", "fastdds.xml"])
    name = VARIABLE_IN_JAZZY if context.environment.get("ROS_DISTRO") == "jazzy" else VARIABLE
    return [] if name in context.environment else [SetEnvironmentVariable(name, profile)]

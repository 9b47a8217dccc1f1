"""What every launch file does first: nothing in, the environment for whole camera images out."""

from __future__ import annotations

from launch import Action, LaunchContext
from launch.actions import OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
VARIABLE_IN_JAZZY = "FASTRTPS_DEFAULT_PROFILES_FILE"  # Fast DDS 2 knows this name alone, Fast DDS 3 warns of it


def image_transport() -> Action:
    """Shared memory for whole images, unless the user chose a profile; by default most 640x480 images are lost."""
    return OpaqueFunction(function=_set_profile)


def _set_profile(context: LaunchContext) -> list[Action]:
    profile = PathJoinSubstitution([FindPackageShare("vla_policy"), "config", "fastdds.xml"])
    name = VARIABLE_IN_JAZZY if context.environment.get("ROS_DISTRO") == "jazzy" else VARIABLE
    return [] if name in context.environment else [SetEnvironmentVariable(name, profile)]

"""What every launch file does first: nothing in, the environment for whole camera images out."""

from __future__ import annotations

from launch import Action, LaunchContext
from launch.actions import OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")  # Fast DDS 3, and 2


def image_transport() -> Action:
    """Shared memory for whole images, unless the user chose a profile; by default most 640x480 images are lost."""
    return OpaqueFunction(function=_set_profile)


def _set_profile(context: LaunchContext) -> list[Action]:
    profile = PathJoinSubstitution([FindPackageShare("vla_policy"), "config", "fastdds.xml"])
    return [SetEnvironmentVariable(name, profile) for name in PROFILE_VARIABLES if name not in context.environment]

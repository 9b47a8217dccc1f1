"""Starts the guard, which alone may drive a robot. Arguments: `ros2 launch vla_policy guard.launch.py -s`."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from vla_policy.execution import Execution
from vla_policy_node.launch_actions import image_transport


def generate_launch_description() -> LaunchDescription:
    """Its own process: chunks to limited, watched, latched robot commands. The whole launch ends when it does."""
    robots = PathJoinSubstitution([FindPackageShare("vla_policy"), "config", "robots"])
    return LaunchDescription([
        DeclareLaunchArgument("contract", default_value=PathJoinSubstitution([robots, "tabletop.yaml"]),
                              description="robot contract file"),
        DeclareLaunchArgument("pace", default_value="realtime", choices=["realtime", "lockstep"],
                              description="lockstep only with a simulator that waits"),
        DeclareLaunchArgument("execution", default_value="async", choices=[str(mode) for mode in Execution],
                              description="what the robot does while a policy computes: docs/execution.md"),
        DeclareLaunchArgument("use_sim_time", default_value="false", choices=["true", "false"],
                              description="take time from /clock"),
        image_transport(),
        Node(package="vla_policy", executable="guard_node", name="guard_node", output="screen",
             parameters=[{"contract": LaunchConfiguration("contract"), "pace": LaunchConfiguration("pace"),
                          "execution": LaunchConfiguration("execution"),
                          "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}],
             on_exit=after_guard),
    ])


def after_guard(event: object, context: LaunchContext) -> list:
    """Nothing may drive the robot unguarded. An exception ends the launch with exit code 1."""
    if context.is_shutdown:
        return []
    raise RuntimeError("the guard ended, see its last lines above; without it nothing may move")

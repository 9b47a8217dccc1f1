"""Starts the simulator node: the robot's topics, /clock in lockstep, /sim/reset.

Arguments: `ros2 launch vla_policy sim.launch.py -s`.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from vla_policy_node.launch_actions import image_transport


def generate_launch_description() -> LaunchDescription:
    """One process; the whole launch ends when it does."""
    robots = PathJoinSubstitution([FindPackageShare("vla_policy"), "config", "robots"])
    return LaunchDescription([
        DeclareLaunchArgument("sim", default_value="tabletop", description="simulator: tabletop, calvin or simpler"),
        DeclareLaunchArgument("contract", default_value=PathJoinSubstitution([robots, "tabletop.yaml"]),
                              description="robot contract file"),
        DeclareLaunchArgument("pace", default_value="realtime", choices=["realtime", "lockstep"],
                              description="realtime: as a robot; lockstep: sim time waits for each command"),
        DeclareLaunchArgument("task", default_value="", description="task of the first scene (default: the first)"),
        DeclareLaunchArgument("seed", default_value="0", description="seed of the first scene"),
        DeclareLaunchArgument("python", default_value="", description="Python of the node (default: the project's)"),
        DeclareLaunchArgument("publish_state", default_value="false", choices=["true", "false"],
                              description="tell the simulator's whole state on /sim/state, for a scripted operator"),
        image_transport(),
        Node(package="sim_bridges", executable="sim_node", name="sim_node", output="screen",
             prefix=LaunchConfiguration("python"),
             parameters=[{"sim": LaunchConfiguration("sim"), "contract": LaunchConfiguration("contract"),
                          "pace": LaunchConfiguration("pace"),
                          "task": ParameterValue(LaunchConfiguration("task"), value_type=str),
                          "seed": ParameterValue(LaunchConfiguration("seed"), value_type=int),
                          "publish_state": ParameterValue(LaunchConfiguration("publish_state"), value_type=bool)}],
             on_exit=after_sim),
    ])


def after_sim(event: object, context: LaunchContext) -> list:
    """Without a world there is nothing to do. An exception ends the launch with exit code 1."""
    if context.is_shutdown:
        return []
    raise RuntimeError("the simulator ended, see its last lines above")

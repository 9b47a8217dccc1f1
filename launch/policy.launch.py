"""Starts the policy node and, never without it, the guard. Arguments: `ros2 launch vla_policy policy.launch.py -s`."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from vla_policy.execution import Execution
from vla_policy_node.launch_actions import image_transport, include

REFUSED = 1  # exit code of a policy node that could not be configured


def generate_launch_description() -> LaunchDescription:
    """Two processes: the guard outlives a policy that crashes, and nothing outlives the guard."""
    share = FindPackageShare("vla_policy")
    policy = policy_node()
    return LaunchDescription([
        DeclareLaunchArgument("contract", description="robot contract file",
                              default_value=PathJoinSubstitution([share, "config", "robots", "tabletop.yaml"])),
        DeclareLaunchArgument("bundle", default_value=PathJoinSubstitution([share, "policies", "tabletop"]),
                              description="folder of the policy bundle, or ws://HOST:PORT of a policy server"),
        DeclareLaunchArgument("pace", default_value="realtime", choices=["realtime", "lockstep"],
                              description="lockstep only with a simulator that waits"),
        DeclareLaunchArgument("execution", default_value="async", choices=[str(mode) for mode in Execution],
                              description="what the robot does while the policy computes: docs/execution.md"),
        DeclareLaunchArgument("use_sim_time", default_value="false", choices=["true", "false"],
                              description="take time from /clock"),
        DeclareLaunchArgument("device", default_value="auto", description="auto, cpu or cuda"),
        DeclareLaunchArgument("dtype", default_value="float32", description="float32, bfloat16, int8 or fp8"),
        DeclareLaunchArgument("engine", default_value="eager", choices=["eager", "compile", "graph"],
                              description="how the model is run; see docs/speed.md"),
        DeclareLaunchArgument("resize", default_value="host", choices=["host", "device"],
                              description="where images are made square; device only with engines on a GPU"),
        DeclareLaunchArgument("instruction", default_value="", description="follow this once the policy is active"),
        image_transport(),
        include("guard", **{name: LaunchConfiguration(name)
                            for name in ("contract", "pace", "execution", "use_sim_time")}),
        policy,
        RegisterEventHandler(OnProcessExit(target_action=policy, on_exit=after_policy)),
    ])


def policy_node() -> Node:
    """The lifecycle node that runs the bundle; it configures and activates itself."""
    return Node(package="vla_policy", executable="policy_node", name="policy_node", output="screen",
                parameters=[{"contract": LaunchConfiguration("contract"), "bundle": LaunchConfiguration("bundle"),
                             "pace": LaunchConfiguration("pace"), "execution": LaunchConfiguration("execution"),
                             "device": LaunchConfiguration("device"), "dtype": LaunchConfiguration("dtype"),
                             "engine": LaunchConfiguration("engine"), "resize": LaunchConfiguration("resize"),
                             "instruction": ParameterValue(LaunchConfiguration("instruction"), value_type=str),
                             "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}])


def after_policy(event: object, context: LaunchContext) -> list:
    """A policy that refused to start ends the launch; one that crashed leaves the guard to hold the robot."""
    if context.is_shutdown:
        return []
    if event.returncode == REFUSED:
        raise RuntimeError("the policy node refused to start, see its error above")
    return [LogInfo(msg="the policy node ended; the guard goes on and holds the robot")]

"""Starts the teleoperation node of a device and, for a gamepad, the driver of package `joy` where it is installed.

    ros2 launch vla_policy teleop.launch.py contract:=ur5e device:=spacemouse

The guard must run; record.launch.py brings up everything. A keyboard needs a terminal: docs/teleoperation.md.
"""

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from vla_policy.errors import ConfigError, nearest
from vla_policy.resources import find_contract, find_teleop
from vla_policy.teleop.mapping import Device

ARGUMENTS = {
    "contract": ("tabletop", "robot contract: a name in config/robots or a file"),
    "device": ("joy", "what the operator holds: joy, keyboard, spacemouse or leader"),
    "mapping": ("", "mapping of the device: a name in config/teleop or a file (default: the device's own)"),
    "instruction": ("", "what the robot is to do, for recordings (default: that of the simulator's scene)"),
    "operator": ("", "who drives, for recordings"),
    "joy_node": ("auto", "true: start package joy's driver; false: yours runs; auto: start it if it is installed"),
}
JOY_NODE = ("auto", "true", "false")
JOY_MISSING = ("package 'joy' is not installed: start a driver that publishes sensor_msgs/Joy on /joy, or install it, "
               "e.g. sudo apt-get install ros-$ROS_DISTRO-joy")


def generate_launch_description() -> LaunchDescription:
    """Everything is decided in `bring_up`, once the arguments are known."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=bring_up)])


def bring_up(context: LaunchContext) -> list[Action]:
    """The actions for the given arguments. Raises: ConfigError, which ends the launch before anything starts."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    device = given["device"]
    if device not in list(Device):
        raise ConfigError(f"device:={device}; {nearest(device, Device)}")
    if given["joy_node"] not in JOY_NODE:
        raise ConfigError(f"joy_node:={given['joy_node']}; {nearest(given['joy_node'], JOY_NODE)}")
    texts = {"contract": str(find_contract(given["contract"])), "device": device,
             "mapping": str(find_teleop(given["mapping"] or device)), "instruction": given["instruction"],
             "operator": given["operator"]}
    if device == Device.KEYBOARD:
        words = " ".join(f"-p {name}:={value!r}" for name, value in texts.items() if value)
        return [LogInfo(msg="a launch has no terminal for the keyboard; run in one of its own: "
                        f"ros2 run vla_policy teleop_node --ros-args {words}")]
    node = Node(package="vla_policy", executable="teleop_node", name="teleop_node", output="screen",
                parameters=[{name: ParameterValue(value, value_type=str) for name, value in texts.items()}],
                on_exit=after_teleop)
    return [*(joy_driver(given["joy_node"]) if device == Device.JOY else []), node]


def joy_driver(wanted: str) -> list[Action]:
    """Package joy's node at a steady rate, where it is wanted and installed. Raises: ConfigError where it must be."""
    if wanted == "false":
        return []
    try:
        get_package_prefix("joy")
    except PackageNotFoundError:
        if wanted == "true":
            raise ConfigError(f"joy_node:=true: {JOY_MISSING}") from None
        return [LogInfo(msg=JOY_MISSING)]
    return [Node(package="joy", executable="joy_node", name="joy_node", output="screen",
                 parameters=[{"autorepeat_rate": 50.0, "deadzone": 0.0}])]


def after_teleop(event: object, context: LaunchContext) -> list[Action]:
    """Without its node there is no teleoperation. An exception ends the launch with exit code 1."""
    if context.is_shutdown or not event.returncode:
        return []
    raise RuntimeError("the teleoperation ended, see its last line above; the guard holds the robot")

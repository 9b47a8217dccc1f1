"""Brings up a robot or simulator, the guard, a device to teleoperate with and the recorder.

    ros2 launch vla_policy record.launch.py task:=open_drawer output:=outputs/demos device:=joy
    ros2 launch vla_policy record.launch.py sim:=none robot:=ur5e output:=outputs/demos device:=spacemouse
    ros2 launch vla_policy record.launch.py policy:=DIR task:=open_drawer output:=outputs/corrections      interventions

The device's buttons, /vla/record/start and /vla/record/stop begin and end an episode: docs/recording.md.
"""

import os

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from vla_policy.errors import ConfigError
from vla_policy.resources import find_contract, find_policy, find_sim_contract, is_server
from vla_policy.teleop.mapping import Device
from vla_policy_node.launch_actions import (
    HEADLESS,
    SIMS,
    check_arguments,
    check_program,
    console,
    image_transport,
    include,
)

ARGUMENTS = {
    "sim": ("tabletop", "simulator: tabletop, calvin, simpler, or none for a real robot"),
    "sim_python": ("", "Python of the simulator's node, where it needs packages of its own (default: the project's)"),
    "robot": ("", "robot contract: a name in config/robots or a file (default: the simulator's, or its task's)"),
    "task": ("", "scene of the simulator (default: its first task)"),
    "seed": ("0", "seed of the first scene"),
    "publish_state": ("false", "true: the simulator tells its whole state, for a scripted operator"),
    "output": ("outputs/recorded", "folder for the episodes; one contract a folder"),
    "device": ("joy", "what the operator holds: joy, keyboard, spacemouse, leader, or none"),
    "mapping": ("", "mapping of the device: a name in config/teleop or a file (default: the device's own)"),
    "joy_node": ("auto", "true: start package joy's driver; false: yours runs; auto: start it if it is installed"),
    "operator": ("", "who drives, to keep with each episode"),
    "instruction": ("", "what the robot is to do, where no simulator says it; a policy follows it at once"),
    "policy": ("", "policy to correct: a bundle (name or folder), or ws://HOST:PORT (default: the operator alone)"),
    "policy_device": ("auto", "where the policy runs: auto, cpu or cuda"),
    "compression": ("none", "of the bags: none, or zstd, which takes a core for large images"),
    "min_free_mb": ("1024", "space on the disk that an episode needs to begin [MB]"),
    "headless": ("auto", "true: no window; false: open the console; auto: open it where there is a screen"),
}
DEVICES = (*Device, "none")
REFUSED = 2  # exit code of a recorder that cannot use its parameters
COMPRESSIONS = ("none", "zstd")


def generate_launch_description() -> LaunchDescription:
    """Everything is decided in `bring_up`, once the arguments are known."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, image_transport(), OpaqueFunction(function=bring_up)])


def bring_up(context: LaunchContext) -> list[Action]:
    """The actions for the given arguments. Raises: ConfigError, which ends the launch before anything starts.

    The pace is always realtime: an operator cannot be waited for.
    """
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    check(given, context.launch_configurations)
    contract = str(find_contract(given["robot"]) if given["robot"] else find_sim_contract(given["sim"], given["task"]))
    actions: list[Action] = []
    if given["sim"] != "none":
        actions.append(include("sim", sim=given["sim"], contract=contract, pace="realtime", task=given["task"],
                               python=os.path.expanduser(given["sim_python"]),
                               seed=given["seed"], publish_state=given["publish_state"]))
    actions.append(guarded(given, contract))
    actions += [recorder(given, contract), teleop(given, contract)]
    return actions + console(context, given["headless"], contract)


def check(given: dict[str, str], all_configurations: dict[str, str]) -> None:
    """Raises: ConfigError naming the argument, what it got, and what it takes."""
    choices = {"sim": SIMS, "device": DEVICES, "compression": COMPRESSIONS, "headless": HEADLESS,
               "publish_state": ("true", "false")}
    check_arguments(given, all_configurations, choices, numbers=("seed", "min_free_mb"))
    if not given["output"]:
        raise ConfigError("output:= got nothing, expected the folder for the episodes")
    check_program("sim_python", given["sim_python"])
    if given["sim"] == "none" and not given["robot"]:
        raise ConfigError("sim:=none needs robot:=NAME, a contract in config/robots or a file")


def guarded(given: dict[str, str], contract: str) -> Action:
    """The guard; with a policy the policy node too, which never comes without it."""
    if not given["policy"]:
        return include("guard", contract=contract)
    bundle = given["policy"] if is_server(given["policy"]) else str(find_policy(given["policy"]))
    return include("policy", contract=contract, bundle=bundle, device=given["policy_device"],
                   instruction=given["instruction"])


def recorder(given: dict[str, str], contract: str) -> Node:
    """Writes the episodes."""
    texts = {"contract": contract, "output": os.path.abspath(os.path.expanduser(given["output"])),
             "operator": given["operator"], "compression": given["compression"]}
    return Node(package="vla_policy", executable="recorder_node", name="recorder_node", output="screen",
                parameters=[as_text(texts) | {"min_free_mb": int(given["min_free_mb"])}], on_exit=after_recorder)


def after_recorder(event: object, context: LaunchContext) -> list[Action]:
    """A recorder that refused to start ends the launch; one that crashed does not let go of the robot."""
    if context.is_shutdown:
        return []
    if event.returncode == REFUSED:
        raise RuntimeError("the recorder refused to start, see its error above")
    return [LogInfo(msg="the recorder ended; robot and operator go on, end the launch to record again")]


def teleop(given: dict[str, str], contract: str) -> Action:
    """The operator's device."""
    if given["device"] == "none":
        return LogInfo(msg="no device: drive by /vla/teleop/action_chunk, or let a policy drive")
    passed = ("device", "mapping", "instruction", "operator", "joy_node")
    return include("teleop", contract=contract, **{name: given[name] for name in passed})


def as_text(values: dict[str, str]) -> dict[str, ParameterValue]:
    """Text that stays text, though it be empty or look like a number."""
    return {name: ParameterValue(value, value_type=str) for name, value in values.items()}

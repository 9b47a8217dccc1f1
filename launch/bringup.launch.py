"""Brings up a robot or simulator, the policy and the guard, and plays instructed episodes.

    ros2 launch vla_policy bringup.launch.py                                     ten episodes in the embedded simulator
    ros2 launch vla_policy bringup.launch.py instruction:='open the drawer'      one instruction, until you stop it
    ros2 launch vla_policy bringup.launch.py sim:=none robot:=ur5e policy:=DIR   a real robot whose drivers already run
"""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch_ros.actions import Node

from vla_policy.errors import ConfigError
from vla_policy.execution import Execution
from vla_policy.resources import find_contract, find_policy, find_sim_contract, is_server
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
    "policy": ("tabletop", "bundle (the name of a shipped one or a folder), or ws://HOST:PORT of a policy server"),
    "pace": ("lockstep", "lockstep: sim time waits for each command; realtime: as a robot"),
    "execution": ("async", "while the policy computes: blocking, async, ensemble or rtc (docs/execution.md)"),
    "device": ("auto", "auto, cpu or cuda"),
    "dtype": ("float32", "the model's numbers: float32, bfloat16, int8 or fp8"),
    "engine": ("eager", "how the model is run: eager, compile or graph"),
    "instruction": ("", "follow this instruction instead of playing episodes"),
    "task": ("", "first scene of the simulator (default: its first task)"),
    "episodes": ("", "episodes to play, then end; 0: stay up (default: 10, or 0 with an instruction or a robot)"),
    "tasks": ("all", "tasks of the episodes: all, or names separated by commas"),
    "headless": ("auto", "true: no window; false: open the console; auto: open it where there is a screen"),
    "seed": ("1000000", "seed of the first scene"),
    "output": ("", "folder for summary.json, video and plots (default: none)"),
    "summary": ("", "a further file for summary.json"),
}
PACES = ("lockstep", "realtime")
ENGINES = ("eager", "compile", "graph")


def generate_launch_description() -> LaunchDescription:
    """Everything is decided in `bring_up`, once the arguments are known."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, image_transport(), OpaqueFunction(function=bring_up)])


def bring_up(context: LaunchContext) -> list:
    """The actions for the given arguments. Raises: ConfigError, which ends the launch before anything starts."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    check(given, context.launch_configurations)
    on_robot = given["sim"] == "none"
    pace = "realtime" if on_robot else given["pace"]
    contract = str(find_contract(given["robot"]) if given["robot"] else sim_contract(given))
    bundle = given["policy"] if is_server(given["policy"]) else str(find_policy(given["policy"]))
    policy = include("policy", contract=contract, bundle=bundle, pace=pace,
                     use_sim_time=str(pace == "lockstep").lower(), device=given["device"], dtype=given["dtype"],
                     engine=given["engine"], execution=given["execution"], instruction=given["instruction"])
    shared = [policy, *console(context, given["headless"], contract)]
    if on_robot:
        return shared
    sim = include("sim", sim=given["sim"], contract=contract, pace=pace, task=given["task"], seed=given["seed"],
                  python=os.path.expanduser(given["sim_python"]))
    episodes = given["episodes"] or ("0" if given["instruction"] else "10")
    return [*shared, sim] + ([] if int(episodes) == 0 else [evaluate(given, contract, pace, episodes)])


def sim_contract(given: dict[str, str]) -> Path:
    """The simulator's contract; where it has several robots, that of the task or tasks."""
    return find_sim_contract(given["sim"], given["task"] or given["tasks"])


def check(given: dict[str, str], all_configurations: dict[str, str]) -> None:
    """Raises: ConfigError naming the argument, what it got, and what it takes."""
    choices = {"sim": SIMS, "pace": PACES, "execution": tuple(Execution), "headless": HEADLESS, "engine": ENGINES}
    check_arguments(given, all_configurations, choices, numbers=("episodes", "seed"))
    check_program("sim_python", given["sim_python"])
    if given["sim"] == "none" and not given["robot"]:
        raise ConfigError("sim:=none needs robot:=NAME, a contract in config/robots or a file")
    if given["sim"] == "none" and given["episodes"] not in ("", "0"):
        raise ConfigError(f"episodes:={given['episodes']} needs a simulator; give a robot an instruction instead")


def evaluate(given: dict[str, str], contract: str, pace: str, episodes: str) -> Node:
    """Plays the episodes through the nodes; the launch ends with it."""
    arguments = ["--over", "ros", "--pace", pace, "--sim", given["sim"], "--robot", contract, "--tasks", given["tasks"],
                 "--episodes", episodes, "--seed", given["seed"]]
    if given["output"]:
        arguments += ["--output", os.path.expanduser(given["output"]), "--video"]
    if given["summary"]:
        arguments += ["--json", os.path.expanduser(given["summary"])]
    return Node(package="sim_bridges", executable="evaluate", name="evaluate", output="screen", arguments=arguments,
                on_exit=after_episodes)


def after_episodes(event: object, context: LaunchContext) -> list:
    """The launch ends with the episodes; with exit code 1, by an exception, where they could not be played."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError("the episodes could not be played, see the error above")
    return [Shutdown(reason="all episodes were played")]

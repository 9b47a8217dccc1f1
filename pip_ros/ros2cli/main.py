"""In: the words after `ros2`. Out: the exit code of the command they name."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

# command -> module; a module is only imported when its command is asked for (rclpy takes half a second)
COMMANDS = {
    "launch": ("ros2cli.launch_command", "Run a launch file"),
    "run": ("ros2cli.package_commands", "Run an executable of a package"),
    "pkg": ("ros2cli.package_commands", "Ask for installed packages"),
    "topic": ("ros2cli.topic_command", "Ask for topics, print and publish messages"),
    "node": ("ros2cli.graph_commands", "Ask for nodes"),
    "service": ("ros2cli.graph_commands", "Ask for services and call them"),
    "action": ("ros2cli.action_command", "Ask for actions and send goals"),
    "lifecycle": ("ros2cli.lifecycle_command", "Ask for and change the state of lifecycle nodes"),
    "bag": ("ros2cli.bag_command", "Ask what a bag holds, and play it"),
    "interface": ("ros2cli.interface_command", "Print the definition of a message, service or action"),
    "param": ("ros2cli.param_command", "Ask for and set parameters of nodes"),
}


class CommandError(Exception):
    """What the user asked for cannot be done; the text says why."""


def main(argv: Sequence[str]) -> int:
    """Run one command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="ros2", description="ros2 stand-in; the genuine one comes with a ROS 2 distribution"
    )
    commands = parser.add_subparsers(dest="command", metavar="Commands:", required=True)
    for name, (_, help_text) in COMMANDS.items():
        commands.add_parser(name, help=help_text, add_help=False)
    known = [word for word in argv[:1] if word in COMMANDS]
    if not known:
        parser.parse_args(argv)
        return 2
    sub_parser = argparse.ArgumentParser(prog=f"ros2 {argv[0]}", description=COMMANDS[argv[0]][1])
    module = importlib.import_module(COMMANDS[argv[0]][0])
    module.add_arguments(argv[0], sub_parser)
    arguments = sub_parser.parse_args(argv[1:])
    try:
        return int(arguments.call(arguments) or 0)
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return int(signal.SIGINT)
    except BrokenPipeError:
        return 0

"""In: `ros2 action …`. Out: names of actions; a goal sent, its feedback and result printed."""

from __future__ import annotations

import argparse
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action.client import ActionClient
from rclpy.action.graph import get_action_names_and_types
from rclpy.node import Node

from .connection import absolute, node, print_names, result_of, settled, wait_until
from .messages import filled, interface, to_yaml

_STATUS = {
    getattr(GoalStatus, name): name.removeprefix("STATUS_")
    for name in dir(GoalStatus)
    if name.startswith("STATUS_")
}


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 action`."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="names of the actions")
    listing.add_argument("-t", "--show-types", action="store_true")
    listing.set_defaults(call=list_actions)
    goal = verbs.add_parser("send_goal", help="send a goal and wait for its result")
    goal.add_argument("action_name")
    goal.add_argument("action_type")
    goal.add_argument("goal", help="fields of the goal in YAML")
    goal.add_argument("-f", "--feedback", action="store_true", help="print feedback")
    goal.set_defaults(call=send_goal)


def list_actions(arguments: argparse.Namespace) -> int:
    """Print the names of the actions."""
    with node() as asker:
        print_names(settled(asker, lambda: sorted(get_action_names_and_types(asker))), arguments.show_types)
    return 0


def send_goal(arguments: argparse.Namespace) -> int:
    """Send a goal; Ctrl-C cancels it."""
    action = interface(arguments.action_type, "action")
    goal = filled(action.Goal(), arguments.goal)
    with node() as asker:
        client: ActionClient[Any, Any, Any] = ActionClient(asker, action, absolute(arguments.action_name))
        print("Waiting for an action server to become available...", flush=True)
        wait_until(asker, client.server_is_ready, None)
        print(f"Sending goal:\n     {to_yaml(goal)}", flush=True)
        handle = result_of(
            asker,
            client.send_goal_async(goal, feedback_callback=_print_feedback if arguments.feedback else None),
            "the action server",
        )
        if not handle.accepted:
            print("Goal was rejected.")
            return 0
        print(f"Goal accepted with ID: {bytes(handle.goal_id.uuid).hex()}\n", flush=True)
        try:
            result = result_of(asker, handle.get_result_async(), "the action server")
        except KeyboardInterrupt:
            _cancel(asker, handle)
            raise
        print(f"Result:\n    {to_yaml(result.result)}")
        print(f"Goal finished with status: {_STATUS.get(result.status, 'UNKNOWN')}")
    return 0


def _print_feedback(feedback: Any) -> None:
    print(f"Feedback:\n    {to_yaml(feedback.feedback)}", flush=True)


def _cancel(asker: Node, handle: Any) -> None:
    print("Canceling goal...", flush=True)
    answer = result_of(asker, handle.cancel_goal_async(), "the action server", timeout_s=5.0)
    print("Goal canceled." if answer.goals_canceling else "Failed to cancel goal")

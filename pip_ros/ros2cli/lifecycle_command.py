"""In: `ros2 lifecycle …`. Out: the states of lifecycle nodes; a transition made."""

from __future__ import annotations

import argparse
import sys

from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rclpy.node import Node

from .connection import absolute, call, is_hidden, node, settled, wait_until
from .main import CommandError

_SUFFIX = "/get_state"
_TYPE = "lifecycle_msgs/srv/GetState"


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 lifecycle`."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("nodes", help="names of the lifecycle nodes").set_defaults(call=list_nodes)
    get = verbs.add_parser("get", help="state of one or all lifecycle nodes")
    get.add_argument("node_name", nargs="?")
    get.set_defaults(call=get_state)
    transitions = verbs.add_parser("list", help="transitions that a node can make now")
    transitions.add_argument("node_name")
    transitions.set_defaults(call=list_transitions)
    change = verbs.add_parser("set", help="make a transition")
    change.add_argument("node_name")
    change.add_argument("transition", help="label or number, for example configure")
    change.set_defaults(call=set_state)


def _lifecycle_nodes(asker: Node) -> list[str]:
    return sorted(
        name.removesuffix(_SUFFIX)
        for name, types in asker.get_service_names_and_types()
        if name.endswith(_SUFFIX) and _TYPE in types and not is_hidden(name)
    )


def _found(asker: Node, name: str) -> str:
    """Return the full name of a lifecycle node that is there."""
    full = absolute(name)
    if not wait_until(asker, lambda: full in _lifecycle_nodes(asker)):
        raise CommandError("Node not found")
    return full


def list_nodes(arguments: argparse.Namespace) -> int:
    """Print the names of the lifecycle nodes."""
    with node() as asker:
        for name in settled(asker, lambda: _lifecycle_nodes(asker)):
            print(name)
    return 0


def get_state(arguments: argparse.Namespace) -> int:
    """Print 'label [id]' of one node, or of all with their names."""
    with node() as asker:
        one = arguments.node_name
        names = [_found(asker, one)] if one else settled(asker, lambda: _lifecycle_nodes(asker))
        for name in names:
            state = call(asker, GetState, name + _SUFFIX, GetState.Request()).current_state
            print(f"{'' if one else f'{name}: '}{state.label} [{state.id}]")
    return 0


def list_transitions(arguments: argparse.Namespace) -> int:
    """Print the transitions that a node can make now."""
    with node() as asker:
        for item in _transitions(asker, _found(asker, arguments.node_name)):
            print(
                f"- {item.transition.label} [{item.transition.id}]\n\tStart: {item.start_state.label}\n"
                f"\tGoal: {item.goal_state.label}"
            )
    return 0


def _transitions(asker: Node, name: str) -> list:  # type: ignore[type-arg]
    request = GetAvailableTransitions.Request()
    return list(
        call(
            asker, GetAvailableTransitions, f"{name}/get_available_transitions", request
        ).available_transitions
    )


def set_state(arguments: argparse.Namespace) -> int:
    """Make a transition; it may take as long as loading a model does."""
    with node() as asker:
        name = _found(asker, arguments.node_name)
        known = [item.transition for item in _transitions(asker, name)]
        matching = [item for item in known if arguments.transition in (item.label, str(item.id))]
        if not matching:
            raise CommandError(
                "Unknown transition requested, available ones are:"
                + "".join(f"\n- {item.label} [{item.id}]" for item in known)
            )
        request = ChangeState.Request(transition=matching[0])
        if call(asker, ChangeState, f"{name}/change_state", request, timeout_s=600.0).success:
            print("Transitioning successful")
        else:
            print("Transitioning failed", file=sys.stderr)
    return 0

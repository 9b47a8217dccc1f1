"""In: `ros2 param …`. Out: parameters of a node, read or set."""

from __future__ import annotations

import argparse
from typing import Any

import yaml
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter, parameter_value_to_python

from .connection import absolute, call, node
from .main import CommandError

_LABELS = {
    Parameter.Type.BOOL: "Boolean",
    Parameter.Type.INTEGER: "Integer",
    Parameter.Type.DOUBLE: "Double",
    Parameter.Type.STRING: "String",
}


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 param`."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, function, words in (
        ("list", list_parameters, ()),
        ("get", get_parameter, ("parameter_name",)),
        ("set", set_parameter, ("parameter_name", "value")),
    ):
        sub_parser = verbs.add_parser(verb)
        sub_parser.add_argument("node_name")
        for word in words:
            sub_parser.add_argument(word)
        sub_parser.set_defaults(call=function)


def list_parameters(arguments: argparse.Namespace) -> int:
    """Print the names of the parameters of a node."""
    with node() as asker:
        answer = call(
            asker,
            ListParameters,
            f"{absolute(arguments.node_name)}/list_parameters",
            ListParameters.Request(),
        )
    for name in sorted(answer.result.names):
        print(f"  {name}")
    return 0


def get_parameter(arguments: argparse.Namespace) -> int:
    """Print the value of a parameter with its type."""
    with node() as asker:
        values = call(
            asker,
            GetParameters,
            f"{absolute(arguments.node_name)}/get_parameters",
            GetParameters.Request(names=[arguments.parameter_name]),
        ).values
    if not values:
        raise CommandError("Parameter not set")
    value: Any = parameter_value_to_python(values[0])
    kind = Parameter.Type(values[0].type)
    print(
        f"{_LABELS[kind]} value is: {value}"
        if kind in _LABELS
        else f"{kind.name} value is: {list(value or [])}"
    )
    return 0


def set_parameter(arguments: argparse.Namespace) -> int:
    """Set a parameter; the value is read as YAML."""
    parameter = Parameter(arguments.parameter_name, value=yaml.safe_load(arguments.value)).to_parameter_msg()
    with node() as asker:
        result = call(
            asker,
            SetParameters,
            f"{absolute(arguments.node_name)}/set_parameters",
            SetParameters.Request(parameters=[parameter]),
        ).results[0]
    if not result.successful:
        raise CommandError(f"Setting parameter failed{': ' + result.reason if result.reason else ''}")
    print(f"Set parameter successful{': ' + result.reason if result.reason else ''}")
    return 0

"""In: `ros2 node …`, `ros2 service …`. Out: what is in the graph, answers of services."""

from __future__ import annotations

import argparse

from .connection import absolute, call, is_hidden, node, print_names, settled
from .messages import filled, interface


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Fill the parser of `ros2 node` or `ros2 service`."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    if command == "node":
        verbs.add_parser("list", help="names of the running nodes").set_defaults(call=list_nodes)
        return
    listing = verbs.add_parser("list", help="names of the services")
    listing.add_argument("-t", "--show-types", action="store_true")
    listing.set_defaults(call=list_services)
    calling = verbs.add_parser("call", help="call a service")
    calling.add_argument("service_name")
    calling.add_argument("service_type")
    calling.add_argument("values", nargs="?", default="{}", help="fields of the request in YAML")
    calling.set_defaults(call=call_service)


def list_nodes(arguments: argparse.Namespace) -> int:
    """Print the full names of the nodes."""
    with node() as asker:
        found = settled(asker, lambda: sorted(asker.get_node_names_and_namespaces()))
    for name in sorted(f"{namespace.rstrip('/')}/{name}" for name, namespace in found):
        if not is_hidden(name):
            print(name)
    return 0


def list_services(arguments: argparse.Namespace) -> int:
    """Print the names of the services."""
    with node() as asker:
        print_names(settled(asker, lambda: sorted(asker.get_service_names_and_types())), arguments.show_types)
    return 0


def call_service(arguments: argparse.Namespace) -> int:
    """Call a service and print request and response."""
    service = interface(arguments.service_type, "srv")
    request = filled(service.Request(), arguments.values)
    with node() as asker:
        print(f"requester: making request: {request!r}\n", flush=True)
        response = call(asker, service, absolute(arguments.service_name), request, timeout_s=60.0)
    print(f"response:\n{response!r}\n")
    return 0

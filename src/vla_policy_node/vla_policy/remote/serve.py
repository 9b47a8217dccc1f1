"""A policy bundle in, a policy server out: `ros2 run vla_policy serve BUNDLE`, or without ROS
`python -m vla_policy.remote.serve BUNDLE`.

For robots without a GPU and for vla-eval's benchmarks. Listens on this machine alone unless --host says otherwise;
then give it a token and TLS. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console

from vla_policy.chance import RANDOM, RandomPolicy
from vla_policy.checkpoint import load_bundle
from vla_policy.contract import ActionKind, load_contract
from vla_policy.engine import EngineMode, NumberType
from vla_policy.errors import ConfigError, VlaError
from vla_policy.policy import Policy, step_together
from vla_policy.remote.answering import Batching
from vla_policy.remote.client import TOKEN_VARIABLE
from vla_policy.remote.convention import Convention
from vla_policy.remote.server import LOOPBACK, PolicyServer, ServerOptions
from vla_policy.remote.session import Session
from vla_policy.resources import find_contract, find_policy
from vla_policy.strict import load_yaml

MakeSession = Callable[[], Session]


@dataclass(frozen=True, slots=True)
class Served:
    """A policy that is loaded and warm: what makes a session for a new client, and how clients are stepped together."""

    make_session: MakeSession
    batching: Batching | None


def make_served(options: argparse.Namespace) -> Served:
    """The policy that the command line asks for. Raises: VlaError."""
    convention = load_yaml(Convention, options.convention, ConfigError) if options.convention else Convention()
    return (_chance if options.bundle == RANDOM else _of_bundle)(options, convention)


def make_server(options: argparse.Namespace) -> PolicyServer:
    """The server of this process that the command line asks for. Raises: VlaError."""
    token = os.environ.get(TOKEN_VARIABLE) or None
    tls = _tls(options.tls_certificate, options.tls_key)
    served = make_served(options)
    settings = ServerOptions(options.host, options.port, token, tls, options.clients)
    return PolicyServer(served.make_session, settings, served.batching)


def _of_bundle(options: argparse.Namespace, convention: Convention) -> Served:
    bundle = load_bundle(find_policy(options.bundle))
    robot = load_contract(find_contract(options.robot)) if options.robot else bundle.contract
    first = Policy(bundle, options.device, robot, options.dtype, options.engine)
    first.warm_up(range(1, options.batch + 1))
    batching = Batching(step_together, options.batch, options.wait_ms / 1e3) if options.batch > 1 else None
    return Served(lambda: Session(first.sibling(), robot, convention, bundle.state_normalizer is not None), batching)


def _chance(options: argparse.Namespace, convention: Convention) -> Served:
    if not options.robot:
        raise ConfigError("serve random: got no --robot, expected the contract whose limits chance keeps to")
    robot = load_contract(find_contract(options.robot))
    RandomPolicy(robot)  # a contract that it cannot serve is refused now, not at the first client
    feels = robot.action.kind is ActionKind.JOINT_POSITION
    return Served(lambda: Session(RandomPolicy(robot), robot, convention, feels), None)


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--tls-certificate and --tls-key: got one, expected both or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigError(f"{certificate}, {key}: no usable certificate and key in PEM format: {problem}") from None
    return context


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundle", help="policy bundle: a folder or the name of a shipped one; or random, within the limits of --robot"
    )
    parser.add_argument("--robot", help="contract of the robot, where it is not the bundle's: a file or a name")
    parser.add_argument(
        "--host", default=LOOPBACK, help=f"address to listen on (default {LOOPBACK}, this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=get_args(NumberType))
    parser.add_argument("--engine", default="eager", choices=get_args(EngineMode), help="how the model is run")
    parser.add_argument("--clients", type=int, default=16, help="most clients at once")
    parser.add_argument(
        "--convention", type=Path, help="YAML: how clients that take single rows write actions (see convention.py)"
    )
    parser.add_argument("--tls-certificate", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--batch", type=_count, default=1, help="most clients whose observations are stepped together")
    parser.add_argument("--wait-ms", type=_wait, default=0.0,
                        help="how long an observation waits for others to be stepped with")
    parser.add_argument("--ray", metavar="ADDRESS",
                        help="spread over a Ray cluster: address of its head, auto, or local (docs/policy-server.md)")
    parser.add_argument("--replicas", type=_count, default=1, help="copies of the policy, with --ray")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each copy, with --ray; 0.5: two copies on a GPU")
    parser.epilog = f"The environment variable {TOKEN_VARIABLE} holds the token that clients must send."
    options = parser.parse_args(arguments)
    if options.ray is None and (options.replicas > 1 or options.gpus):
        parser.error("--replicas and --gpus are of a Ray cluster: add --ray ADDRESS, or --ray local")
    return options


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected at least 1")
    return value


def _wait(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1000.0:
        raise argparse.ArgumentTypeError(f"got {value}, expected milliseconds, 0 to 1000")
    return value


async def _serve(server: PolicyServer) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    scheme = "wss" if server.options.tls else "ws"
    await server.run(lambda: Console().print(f"serving on {scheme}://{server.options.host}:{server.port}"))


def _serve_on_ray(options: argparse.Namespace) -> None:
    try:
        from vla_policy.remote.ray_serve import serve_on_ray
    except ImportError as problem:
        raise ConfigError(f'--ray: Ray Serve is not installed here ({problem}); `pip install "ray[serve]"`, or serve '
                          "without --ray") from None
    serve_on_ray(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    options = parse_arguments(arguments)
    if options.host != LOOPBACK and not os.environ.get(TOKEN_VARIABLE):
        logging.getLogger("vla_policy.remote").warning(
            "anyone who reaches %s may use the policy; set %s", options.host, TOKEN_VARIABLE
        )
    try:
        if options.ray is None:
            asyncio.run(_serve(make_server(options)))
        else:
            _serve_on_ray(options)
    except VlaError as problem:
        sys.stderr.write(f"serve: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

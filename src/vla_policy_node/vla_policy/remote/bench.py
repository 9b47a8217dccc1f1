"""A bundle in; what a policy server adds to a policy in this process, for one client and many, out.

    python -m vla_policy.remote.bench --policy tabletop --clients 1 8

In one run, side by side: the policy in this process, and the same behind a server on loopback (a process of its own),
plain and batched, with as many clients as asked, each a process of its own that asks again once it has its answer.
The added latency is a client's time for a step less the model's share that the server tells.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from vla_policy.contract import RobotContract
from vla_policy.errors import RemoteError, VlaError
from vla_policy.remote.client import ClientOptions, RemotePolicy
from vla_policy.resources import find_policy
from vla_policy.types import Observation, Pose

if TYPE_CHECKING:
    from vla_policy.policy import Policy

ANSWER_S, READY_S = 60.0, 180.0
WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Row:
    """Where the policy ran, for how many clients. step_ms, added_ms: p50 and p95 of a client's step, and of that less
    the server's own work. steps_per_s: of all clients together.
    """

    where: str
    clients: int
    step_ms: tuple[float, float]
    added_ms: tuple[float, float]
    steps_per_s: float


def made_up(contract: RobotContract, cameras: Sequence[str]) -> Observation:
    """An observation of noise, of the contract's sizes."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (contract.cameras[name].height, contract.cameras[name].width, 3),
                                 dtype=np.uint8) for name in cameras}
    pose = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0])) if contract.pose else None
    return Observation(1, images, np.zeros(len(contract.joints.names)), pose)


def in_process(policy: Policy, instruction: str, steps: int) -> Row:
    """The policy here, called straight."""
    seen = made_up(policy.contract, policy.cameras)
    policy.reset(instruction)
    spent_ms, started_s = [], 0.0
    for step in range(-WARM_UP, steps):
        if step == 0:
            started_s = time.perf_counter()
        before_s = time.perf_counter()
        policy.step(seen)
        if step >= 0:
            spent_ms.append(1e3 * (time.perf_counter() - before_s))
    return Row("in process", 1, _percentiles(spent_ms), (0.0, 0.0), steps / (time.perf_counter() - started_s))


def over_loopback(where: str, url: str, contract: RobotContract, instruction: str, clients: int, steps: int,
                  images: str) -> Row:
    """`clients` processes that each ask `steps` times. Raises: RemoteError where one of them failed."""
    context = multiprocessing.get_context("spawn")
    together, results = context.Barrier(clients), context.Queue()
    arguments = (url, contract, instruction, steps, images, together, results)
    processes = [context.Process(target=_client, args=arguments, daemon=True) for _ in range(clients)]
    for process in processes:
        process.start()
    found = [results.get(timeout=READY_S + ANSWER_S) for _ in processes]
    for process in processes:
        process.join(10.0)
    failures = [result for result in found if isinstance(result, str)]
    if failures:
        raise RemoteError(f"a client of the bench failed: {failures[0]}")
    spent_s = max(end for *_, end in found) - min(start for *_, start, _ in found)
    step_ms = np.concatenate([result[0] for result in found])
    added_ms = np.concatenate([result[1] for result in found])
    return Row(where, clients, _percentiles(step_ms), _percentiles(added_ms), clients * steps / spent_s)


def _client(url: str, contract: RobotContract, instruction: str, steps: int, images: str, together: Any,
            results: Any) -> None:
    """In a process of its own: (step [ms], added [ms], start, end), or what went wrong."""
    try:
        policy = RemotePolicy(url, contract, ClientOptions(answer_s=ANSWER_S, connect_s=ANSWER_S, images=images))
        policy.reset(instruction)
        seen, step_ms, added_ms = made_up(contract, policy.cameras), [], []
        for _ in range(WARM_UP):
            policy.step(seen)
        together.wait(READY_S)
        start_s = time.monotonic()
        for _ in range(steps):
            before_s = time.perf_counter()
            policy.step(seen)
            step_ms.append(1e3 * (time.perf_counter() - before_s))
            added_ms.append(policy.timings["transport"])
        results.put((step_ms, added_ms, start_s, time.monotonic()))
        policy.close()
    except Exception as problem:  # the measuring process tells it
        together.abort()
        results.put(f"{type(problem).__name__}: {problem}")


@contextmanager
def served(bundle: str, *options: str) -> Iterator[str]:
    """The address of a policy server in a process of its own. Raises: RemoteError where it does not come up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vla_policy.remote.serve", bundle, "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            until_s = time.monotonic() + READY_S
            while not _listens(port):
                if server.poll() is not None or time.monotonic() > until_s:
                    server.kill()
                    raise RemoteError(f"bench: the server did not come up: {server.stderr.read().strip()[-500:]}")
                time.sleep(0.1)
            yield f"ws://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(10.0)
            except subprocess.TimeoutExpired:
                server.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _percentiles(values_ms: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(values_ms, (50, 95))
    return round(float(p50), 2), round(float(p95), 2)


def measure(options: argparse.Namespace, console: Console) -> list[Row]:
    """All rows. Raises: VlaError."""
    from vla_policy.checkpoint import load_bundle  # torch; the clients' processes read this module too
    from vla_policy.policy import Policy

    folder = str(find_policy(options.policy))
    bundle = load_bundle(folder)
    instruction = options.instruction or next(iter(bundle.instructions.values()))[0]
    policy = Policy(bundle, options.device)
    policy.warm_up()
    rows = [in_process(policy, instruction, options.steps)]
    most = max(options.clients)
    settings = [("server", ())] + ([("server, batched", ("--batch", str(most)))] if most > 1 else [])
    for where, extra in settings:
        with served(folder, "--device", options.device, "--clients", str(most + 1), *extra) as url:
            for clients in options.clients:
                console.print(f"{where}, {clients} clients …", highlight=False)
                rows.append(over_loopback(where, url, bundle.contract, instruction, clients, options.steps,
                                          options.images))
    return rows


def show(rows: Sequence[Row], console: Console) -> None:
    """A table."""
    table = Table("policy", "clients", "step p50 [ms]", "p95 [ms]", "added p50 [ms]", "p95 [ms]", "steps/s")
    for row in rows:
        table.add_row(row.where, str(row.clients), *(f"{value:.2f}" for value in (*row.step_ms, *row.added_ms)),
                      f"{row.steps_per_s:.0f}")
    console.print(table)
    console.print("added: a client's time for a step less the policy's own; with several clients it holds the waiting "
                  "for the others.", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="tabletop", help="bundle: a folder or the name of a shipped one")
    parser.add_argument("--instruction", default="", help="default: the first that the bundle knows")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=200, help="of each client")
    parser.add_argument("--images", default="raw", choices=("raw", "jpeg", "png"), help="as clients send them")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args(arguments)
    if min(*options.clients, options.steps) < 1:
        parser.error(f"got {options.clients} clients and {options.steps} steps, expected at least 1")
    console = Console(width=110)
    try:
        rows = measure(options, console)
    except VlaError as problem:
        sys.stderr.write(f"bench: {problem}\n")
        return 1
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    show(rows, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())

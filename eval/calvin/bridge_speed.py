"""CALVIN_ROOT in; steps per second of the bare calvin_env, of the bridge and of the nodes, in turns in one run, out.

`CALVIN_ROOT=DIR python eval/calvin/bridge_speed.py [--over ros] [--rounds 5] [--steps 60]`. All render both cameras at
every step. Bare and bridge run in one thread, so their CPU time is compared too: by the clock, whatever else the
machine does counts for one or the other. `--over ros` also plays through simulator, guard and policy as nodes in
lockstep, started anew for each turn, with the random policy behind a policy server.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console

from sim_bridges.calvin.sim import PERIOD_NS, CalvinSim
from sim_bridges.calvin.starts import benchmark_start
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_contract
from vla_policy.types import NS_PER_S, Command

TWIST = np.array([0.05, 0.05, -0.05, 0.0, 0.0, 0.1])
START_S = 60.0  # how long the policy server may take to start
LEAVE_S = 20.0  # how long nodes may take to end


def main() -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description="What the bridge costs.")
    parser.add_argument("--over", default="process", choices=("process", "ros"), help="ros: through the nodes as well")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--steps", type=int, default=60, help="steps of a turn")
    options = parser.parse_args()
    contract = load_contract(find_contract("calvin"))
    sim = CalvinSim(contract)
    turns: dict[str, Callable[[], tuple[float, float]]] = {
        "bare calvin_env": lambda: _bare(sim, options.steps),
        "bridge in process": lambda: _bridge(sim, options.steps),
    }
    try:
        with _policy_server(options.over == "ros") as address:
            if options.over == "ros":
                turns["nodes in lockstep"] = lambda: _nodes(sim, contract, address, options.steps)
            rates = [[turn() for turn in turns.values()] for _ in range(options.rounds)]
    except VlaError as problem:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]calvin:[/red] {problem}")
        return 1
    finally:
        sim.close()
    _show(list(turns), np.median(rates, axis=0), options.rounds, options.steps)
    return 0


def _show(names: list[str], rates: np.ndarray, rounds: int, steps: int) -> None:
    """rates: (turns, 2), steps a second by the clock and of CPU time."""
    console = Console(highlight=False, soft_wrap=True)
    for name, (clock, cpu), (clock_ratio, cpu_ratio) in zip(names, rates, rates / rates[0], strict=True):
        by_cpu = "" if np.isnan(cpu) else f"; {cpu:.1f} a second of CPU time, ratio {cpu_ratio:.2f}"
        console.print(f"{name}: {clock:.1f} steps/s, ratio {clock_ratio:.2f}{by_cpu}")
    console.print(f"medians of {rounds} turns of {steps} steps")


def _timed(steps: int, step: Callable[[], object]) -> tuple[float, float]:
    clock_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return steps / (time.perf_counter() - clock_s), steps / (time.process_time() - cpu_s)


def _bare(sim: CalvinSim, steps: int) -> tuple[float, float]:
    """The genuine environment alone, which renders within its step."""
    table = sim.world.table
    sim.place(benchmark_start(sim.draw_chain(0).start))
    table.cameras = list(sim.cameras.values())
    try:
        return _timed(steps, lambda: table.step(np.append(TWIST * 0.5, 1.0)))
    finally:
        table.cameras = []


def _bridge(sim: CalvinSim, steps: int) -> tuple[float, float]:
    """Through the bridge: command, oracle and an observation with images."""
    sim.begin_chain(sim.draw_chain(0))

    def step() -> None:
        """One control period."""
        sim.advance(Command(sim.time_ns, TWIST, 1.0), PERIOD_NS)
        sim.observe()

    return _timed(steps, step)


def _nodes(sim: CalvinSim, contract: RobotContract, address: str, steps: int) -> tuple[float, float]:
    """Through the nodes, by the arrival of the joint states of one task's first steps."""
    import rclpy  # only this turn needs ROS
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from sensor_msgs.msg import JointState

    from sim_bridges.ros_rollout import RosRollout
    from vla_policy.messages import stamp_to_ns
    from vla_policy_node.pace import RELIABLE, Pace

    command = ["ros2", "launch", "vla_policy", "bringup.launch.py", "sim:=calvin", "episodes:=0", "headless:=true"]
    seen_s: dict[int, float] = {}  # stamp -> when it was heard first; a waiting simulator repeats itself

    def hear(msg: JointState) -> None:
        """Note when an instant was heard of."""
        seen_s.setdefault(stamp_to_ns(msg.header.stamp), time.perf_counter())

    with _process([*command, f"policy:={address}"]):
        rclpy.init()
        node, client = Node("speed"), RosRollout(contract, Pace.LOCKSTEP)
        node.create_subscription(JointState, contract.joints.topic, hear, RELIABLE)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        listener = threading.Thread(target=executor.spin, daemon=True)
        listener.start()
        try:
            client.wait_until_ready()
            chain = sim.draw_chain(0)
            episode = client.play_chain(chain, steps * PERIOD_NS / NS_PER_S).episodes[0]
        finally:
            client.close()
            executor.shutdown()
            listener.join(LEAVE_S)
            rclpy.try_shutdown()
    times_s = [when for stamp, when in sorted(seen_s.items()) if stamp >= episode.start_ns][: steps + 1]
    return (len(times_s) - 1) / (times_s[-1] - times_s[0]), np.nan


@contextmanager
def _policy_server(wanted: bool) -> Iterator[str]:
    """The address of a server of the random policy, where one is wanted."""
    if not wanted:
        yield ""
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vla_policy.remote.serve", "random", "--robot", "calvin", "--port", str(port)]
    with _process(command):
        deadline = time.monotonic() + START_S
        while not _answers(port):
            if time.monotonic() > deadline:
                raise VlaError(f"waited {START_S:g} s for the policy server; see above")
            time.sleep(0.1)
        yield f"ws://127.0.0.1:{port}"


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _process(command: list[str]) -> Iterator[None]:
    """A command that runs meanwhile; its errors are shown."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())

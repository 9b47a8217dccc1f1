"""Camera size and rate in; what the nodes add to the model's time, and the CPU that they take idle and running, out.

    ros2 run vla_policy bench_node --seconds 20 --json FILE

Starts a robot that stands still (two cameras by default), the policy node and the guard in a ROS domain of its own, so
that nothing of it reaches a real robot. The overhead of an inference is sensor stamp to published chunk, less the
model's own time.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
import yaml
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rich.console import Console
from rich.table import Table
from vla_msgs.action import RunPolicy
from vla_msgs.msg import PolicyStatus, RobotCommand

from vla_policy.errors import VlaError
from vla_policy.messages import stamp_to_ns
from vla_policy.resources import find_policy
from vla_policy.run import EndReason
from vla_policy.types import NS_PER_S, seconds_to_ns
from vla_policy_node.messages import ns_to_duration
from vla_policy_node.pace import RECORDED

if TYPE_CHECKING:
    from vla_policy.bench.cases import Settings

READY_S, END_S = 180.0, 30.0
SECTION_FACTOR = 4  # an inference comes five times a second: percentiles want more of them than a loop's
STAGES = ("image_age", "decode", "preprocess", "model", "postprocess", "publish", "total")
PROCESSES = ("sensors", "policy_node", "guard_node")
TICKS_S = os.sysconf("SC_CLK_TCK")


def write_bundle(folder: Path, policy: str, width: int, height: int) -> tuple[Path, Path]:
    """A copy of a bundle whose cameras are of another size, and its contract's file. Raises: VlaError."""
    from vla_policy.checkpoint import load_bundle, save_bundle  # torch; the measuring process does not keep it

    bundle = load_bundle(find_policy(policy))
    cameras = {name: camera.model_copy(update={"width": width, "height": height})
               for name, camera in bundle.contract.cameras.items()}
    contract = bundle.contract.model_copy(update={"cameras": cameras})
    bundle = type(bundle)(**{name: getattr(bundle, name) for name in bundle.__slots__} | {"contract": contract})
    save_bundle(folder / "bundle", bundle)
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(contract.model_dump(mode="json")), encoding="utf-8")
    return folder / "bundle", path


class Bench(Node):
    """A client of the running nodes."""

    def __init__(self) -> None:
        super().__init__("bench_node")
        self.statuses: list[PolicyStatus] = []
        self.commands: list[RobotCommand] = []
        self._run = ActionClient(self, RunPolicy, "/vla/run")
        self.create_subscription(PolicyStatus, "/vla/status", self.statuses.append, RECORDED)
        self.create_subscription(RobotCommand, "/vla/command", self.commands.append, RECORDED)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def wait_for(self, condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        """Serve until the condition holds. Raises: VlaError after `timeout_s`."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                raise VlaError(f"bench_node: waited {timeout_s:g} s for {what}; see the nodes' lines above")
            self._executor.spin_once(timeout_sec=0.1)

    def rest(self, seconds: float) -> None:
        """Serve for a while."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.1)

    def run(self, instruction: str, seconds: float) -> str:
        """One run of so many seconds. Returns: why it ended earlier, or nothing. Raises: VlaError without an answer."""
        goal = RunPolicy.Goal(instruction=instruction, time_limit=ns_to_duration(seconds_to_ns(seconds)))
        answer = self._run.send_goal_async(goal)
        self.wait_for(answer.done, END_S, "an answer of /vla/run")
        if not answer.result().accepted:
            raise VlaError("bench_node: /vla/run rejected the goal")
        result = answer.result().get_result_async()
        self.wait_for(result.done, seconds + END_S, "the end of the run")
        end = result.result().result
        return "" if end.reason == EndReason.TIME_LIMIT else f"{EndReason(end.reason).name}: {end.message}"


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures. Raises: VlaError."""
    bundle, contract = write_bundle(folder, options.policy, options.width, options.height)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    instruction = options.instruction or next(iter(manifest["instructions"].values()))[0]
    with _processes(bundle, contract, options) as processes:
        rclpy.init()
        bench = Bench()
        bench.wait_for(lambda: bench.statuses and bench.statuses[-1].state == PolicyStatus.IDLE, READY_S,
                       "a policy that is ready")
        bench.rest(3.0)
        idle, _ = _shares(processes, lambda: bench.rest(options.seconds))
        bench.statuses.clear()
        running, ended_early = _shares(processes, lambda: bench.run(instruction, options.seconds))
        inferences = {status.inferences: status for status in bench.statuses if status.run_id and status.inferences}
        found = {
            "cameras": f"2 x {options.width}x{options.height} at {options.rate:g} Hz", "seconds": options.seconds,
            "inferences": len(inferences), "latency_ms": _latencies(list(inferences.values())),
            "cpu_percent_of_a_core": {"idle": idle, "running": running}, "ended_early": ended_early,
            "commands_on_time": _on_time(bench.commands),
        }
        bench.destroy_node()
        rclpy.try_shutdown()
    return found


@contextmanager
def _processes(bundle: Path, contract: Path, options: argparse.Namespace) -> Iterator[dict[str, subprocess.Popen]]:
    python, given = [sys.executable, "-m"], ["-p", f"contract:={contract}", "-p", f"execution:={options.execution}"]
    commands = {
        "sensors": [*python, "vla_policy_node.robot_double", "--contract", str(contract), "--camera-rate",
                    str(options.rate)],
        "guard_node": [*python, "vla_policy_node.guard_node", "--ros-args", *given],
        "policy_node": [*python, "vla_policy_node.policy_node", "--ros-args", *given, "-p", f"bundle:={bundle}",
                        "-p", f"device:={options.device}"],
    }
    started = {name: subprocess.Popen(command) for name, command in commands.items()}
    try:
        yield started
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()


def _shares(processes: dict[str, subprocess.Popen], job: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Share of a core [%] that each process takes while `job` runs, and what that returns."""
    before, start_s = {name: _cpu_s(process.pid) for name, process in processes.items()}, time.monotonic()
    outcome = job()
    spent_s = time.monotonic() - start_s
    shares = {name: round(100 * (_cpu_s(processes[name].pid) - before[name]) / spent_s, 1) for name in PROCESSES}
    return shares, outcome


def _cpu_s(pid: int) -> float:
    """CPU time of a process so far, of all its threads, in user and kernel mode [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def _latencies(statuses: Sequence[PolicyStatus]) -> dict[str, dict[str, float]]:
    """Percentiles of every stage, and of the overhead: all but the model [ms]."""
    if not statuses:
        raise VlaError("bench_node: no inference was told of on /vla/status")
    values = {stage: np.array([getattr(status, f"{stage}_ms") for status in statuses]) for stage in STAGES}
    values["overhead"] = values["total"] - values["model"]
    return {stage: {f"p{rank}": round(float(np.percentile(array, rank)), 2) for rank in (50, 95, 99)}
            for stage, array in values.items()}


def _on_time(commands: Sequence[RobotCommand]) -> float | None:
    """Share of commands of a run that followed the one before within one and a half of the usual gap."""
    stamps_s = np.array([stamp_to_ns(command.header.stamp) for command in commands if command.run_id]) / NS_PER_S
    if len(stamps_s) < 3:
        return None
    gaps_s = np.diff(stamps_s)
    return round(float((gaps_s <= 1.5 * np.median(gaps_s)).mean()), 4)


def show(found: dict[str, Any], console: Console) -> None:
    """Two tables."""
    latencies = Table("stage", title=f"{found['cameras']}, {found['inferences']} inferences", title_justify="left")
    for rank in ("p50", "p95", "p99"):
        latencies.add_column(f"{rank} [ms]", justify="right")
    for stage, row in found["latency_ms"].items():
        words = {"overhead": "overhead: total less model", "total": "total: sensor stamp to chunk"}.get(stage, stage)
        latencies.add_row(words, *(f"{row[rank]:.1f}" for rank in ("p50", "p95", "p99")))
    shares = Table("process", title="CPU [% of a core]", title_justify="left")
    for state in ("idle", "running"):
        shares.add_column(state, justify="right")
    for name in PROCESSES:
        shares.add_row(name, *(f"{found['cpu_percent_of_a_core'][state][name]:.0f}" for state in ("idle", "running")))
    console.print(latencies, shares)
    if found["ended_early"]:
        console.print(f"the run ended early, the figures are of what came before: {found['ended_early']}")
    if found["commands_on_time"] is not None:
        console.print(f"commands on time: {100 * found['commands_on_time']:.2f} %", highlight=False)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="tabletop", help="bundle: a folder or the name of a shipped one")
    parser.add_argument("--instruction", default="", help="default: the first that the bundle knows")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure, idle and running each")
    parser.add_argument("--rate", type=float, default=30.0, help="of the cameras [Hz]")
    parser.add_argument("--width", type=int, default=640, help="[pixels]")
    parser.add_argument("--height", type=int, default=480, help="[pixels]")
    parser.add_argument("--execution", default="async")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    if min(options.seconds, options.rate, options.width, options.height) <= 0:
        parser.error(f"got {options.seconds} s, {options.rate} Hz, {options.width}x{options.height}; "
                     "expected all above 0")
    return options


def measure_apart(options: argparse.Namespace) -> dict[str, Any]:
    """All figures, from a ROS domain of its own. Raises: VlaError."""
    # The guard commands a robot: never on the domain of a real one.
    os.environ |= {"ROS_DOMAIN_ID": str(60 + os.getpid() % 40), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with tempfile.TemporaryDirectory(prefix="bench_node.") as folder:
        return measure(options, Path(folder))


def section(settings: Settings) -> Mapping[str, Any]:
    """The section `ros` of `python -m vla_policy.bench`: what nodes add to the shipped policy. Raises: VlaError."""
    seconds = SECTION_FACTOR * settings.seconds
    found = measure_apart(parse_arguments(["--seconds", str(seconds), "--device", settings.device]))
    told = io.StringIO()
    show(found, Console(file=told, width=100))
    return found | {"lines": told.getvalue().splitlines()}


def main() -> None:
    """The `bench_node` command; exit code 1 and one line where it cannot measure."""
    options = parse_arguments()
    try:
        found = measure_apart(options)
    except VlaError as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit(130)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    show(found, Console())


if __name__ == "__main__":
    main()

"""A benchmark's file, running nodes and their operator in; trials, bags, results.json and a report out.

Use: `ros2 run sim_bridges real_eval --robot ROBOT --output outputs/real`, see docs/real-robot-evaluation.md.
A session that was begun in an --output is gone on with at the first trial that was not played.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rich.console import Console

from sim_bridges.evaluation.agents import describe
from sim_bridges.evaluation.report import Report
from sim_bridges.evaluation.store import ResultStore, in_order
from sim_bridges.evaluation.trials import TrialResult
from sim_bridges.real.benchmark import Benchmark, identity, load_benchmark, plan, select
from sim_bridges.real.nodes import NodesRecorder, NodesRobot
from sim_bridges.real.session import Operator, Session
from sim_bridges.real.terminal import TerminalOperator
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.resources import find_contract, find_real_benchmark

RECORDER_S = 10.0  # how long the recorder is looked for


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="real_eval", description="Measure a policy on a real robot, with a person.")
    parser.add_argument("benchmark", nargs="?", default="real",
                        help="YAML of tasks and settings: a file or a shipped name (default: real)")
    parser.add_argument("--robot", help="contract of the robot: a file or a name")
    parser.add_argument("--output", type=Path,
                        help="folder for results and report; gone on with if it is there")
    parser.add_argument("--tasks", default="all", help="all, or names separated by commas")
    parser.add_argument("--settings", default="all", help="all, or names separated by commas")
    parser.add_argument("--operator", default="", help="name kept in each recording (default: the recorder's own)")
    parser.add_argument("--no-record", action="store_true", help="play without the recorder")
    parser.add_argument("--wait", type=float, default=30.0, help="how long nodes are waited for [s]")
    parser.add_argument("--list", action="store_true", help="list the trials and end")
    options = parser.parse_args(arguments)
    if not options.list and (options.robot is None or options.output is None):
        parser.error("--robot CONTRACT and --output DIR are needed to play; --list shows the trials without them")
    return options


def evaluate_real(options: argparse.Namespace, benchmark: Benchmark, operator: Operator) -> bool:
    """Play what is not played yet; the report is written however the session ends. Returns whether all was played.

    Raises: VlaError; KeyboardInterrupt at Ctrl-C, after the run was ended.
    """
    contract = load_contract(find_contract(options.robot))
    trials, chosen = plan(benchmark), select(plan(benchmark), options.tasks, options.settings)
    with ExitStack() as stack:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)  # at Ctrl-C the run is ended first
        stack.callback(rclpy.try_shutdown)
        node = Node("real_eval")
        robot = NodesRobot(contract, node)
        stack.callback(robot.close)
        robot.wait_until_ready(options.wait)
        recorder = None if options.no_record else _recorder(node, options)
        run = _run(benchmark, contract, robot)
        store = ResultStore(options.output, run)
        found = store.load()
        report = Report(contract, options.output, None, False, len(trials), bar=False)
        report.already(len(found))

        def keep(result: TrialResult) -> None:
            found[result.trial.name] = result
            store.add(result)
            report.trial(result)

        try:
            last = next(reversed(found), "")
            return Session(operator, robot, recorder, keep).play(chosen, set(found), last)
        finally:
            if found:
                report.finish(run, in_order([trial.trial for trial in trials], found))


def _recorder(node: Node, options: argparse.Namespace) -> NodesRecorder:
    recorder = NodesRecorder(node, options.operator)
    recorder.wait_until_ready(RECORDER_S)
    return recorder


def _run(benchmark: Benchmark, contract: RobotContract, robot: NodesRobot) -> dict[str, Any]:
    """What run.json says: all that decides the results, and nothing else."""
    policy = robot.policy() or "of the running nodes"
    try:
        described = describe(policy)
    except ConfigError:  # its bundle lies on the robot's computer
        described = {"policy": policy}
    return {**identity(benchmark), "robot": contract.name, **described}


def main() -> None:
    """The `real_eval` command; exit code 0 when all was played, 3 when trials are left, whatever the success."""
    ros_arguments = sys.argv.index("--ros-args") if "--ros-args" in sys.argv else len(sys.argv)
    options = parse_arguments(sys.argv[1:ros_arguments])
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: also a terminal that is closed ends the run
        signal.signal(number, signal.default_int_handler)
    console = Console(highlight=False)
    try:
        benchmark = load_benchmark(find_real_benchmark(options.benchmark))
        if options.list:
            for trial in select(plan(benchmark), options.tasks, options.settings):
                console.print(f"{trial.trial.name}: {trial.instruction}", markup=False, soft_wrap=True)
            return
        sys.exit(0 if evaluate_real(options, benchmark, TerminalOperator(console)) else 3)
    except VlaError as problem:
        sys.exit(f"real_eval: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

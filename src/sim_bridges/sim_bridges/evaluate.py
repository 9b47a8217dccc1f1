"""A policy bundle and a list of episodes in; live lines, a table, summary.json, a video and plots out.

`--over process` plays in this process (and `--workers` copies of it), `--over ros` through the running nodes; in
lockstep both send the same commands. Use: `ros2 run sim_bridges evaluate --policy tabletop --per-task 25`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from sim_bridges.evaluate_report import Report
from sim_bridges.registry import SIMS, make_sim
from sim_bridges.results import EpisodeResult, summarise
from sim_bridges.rollout import rollout
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError, nearest
from vla_policy.resources import find_contract, find_policy

FIRST_SEED = 1_000_000  # far from any seed that demonstrations are collected with


@dataclass(frozen=True, slots=True)
class Plan:
    """Which episodes are played: (task, seed) in order."""

    episodes: tuple[tuple[str, int], ...]

    @classmethod
    def make(cls, known_tasks: tuple[str, ...], tasks: str, episodes: int | None, per_task: int | None,
             seed: int) -> Plan:
        """`episodes` in all, going round the tasks, or `per_task` of each. Raises: ConfigError for an unknown task."""
        chosen = known_tasks if tasks == "all" else tuple(task.strip() for task in tasks.split(","))
        for task in chosen:
            if task not in known_tasks:
                raise ConfigError(f"--tasks: got '{task}'; {nearest(task, known_tasks)}")
        count = per_task * len(chosen) if per_task is not None else episodes
        return cls(tuple((chosen[i % len(chosen)], seed + i // len(chosen)) for i in range(count)))


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="evaluate", description="Measure a policy bundle in a simulator.")
    parser.add_argument("--policy", default="tabletop", help="bundle: a folder or the name of a shipped one")
    parser.add_argument("--sim", default="tabletop", choices=sorted(SIMS), help="simulator")
    parser.add_argument("--robot", default=None, help="contract: a file or a name (default: the simulator's)")
    parser.add_argument("--over", default="process", choices=("process", "ros"),
                        help="in this process or through the nodes")
    parser.add_argument("--pace", default="lockstep", choices=("lockstep", "realtime"),
                        help="pace of the running sim_node")
    parser.add_argument("--tasks", default="all", help="all, or names separated by commas")
    count = parser.add_mutually_exclusive_group()
    count.add_argument("--episodes", type=_count, default=10, help="episodes in all, going round the tasks")
    count.add_argument("--per-task", type=_count, default=None, help="episodes of each task")
    parser.add_argument("--seed", type=_seed, default=FIRST_SEED, help="first scene seed")
    parser.add_argument("--time-limit", type=_seconds, default=8.0, help="an episode fails after this sim time [s]")
    parser.add_argument("--workers", type=_count, default=1, help="processes, for --over process")
    parser.add_argument("--json", type=Path, default=None, help="where to write summary.json besides --output")
    parser.add_argument("--output", type=Path, default=None,
                        help="folder for summary.json, commands.npz, video and plots")
    parser.add_argument("--video", action="store_true", help="record the cameras (needs --over ros and --output)")
    options = parser.parse_args(arguments)
    if options.video and (options.output is None or options.over != "ros"):
        parser.error("--video needs cameras that run and a folder: add --over ros --output DIR")
    return options


def evaluate(options: argparse.Namespace) -> list[EpisodeResult]:
    """Play the plan, report each episode as it ends, write the outputs. Raises: VlaError."""
    contract = load_contract(find_contract(options.robot or options.sim))
    with ExitStack() as stack:
        report = stack.enter_context(Report(contract, options.output, options.json, options.video))
        if options.over == "ros":
            play = _over_ros(options, contract, report, stack)
        else:
            play = _in_process(options, contract, stack)
        results = []
        for result in play:
            results.append(result)
            report.episode(result)
        report.finish(results, summarise(results))
    return results


def _in_process(options: argparse.Namespace, contract: RobotContract, stack: ExitStack) -> Iterator[EpisodeResult]:
    setup = (options.sim, str(find_policy(options.policy)), contract, options.time_limit)
    plan = _plan(options, contract)
    if options.workers == 1:
        _Worker.prepare(*setup)
        return map(_Worker.play, plan.episodes)
    pool = stack.enter_context(ProcessPoolExecutor(options.workers, get_context("spawn"), _Worker.prepare, setup))
    return pool.map(_Worker.play, plan.episodes)


def _over_ros(options: argparse.Namespace, contract: RobotContract, report: Report,
              stack: ExitStack) -> Iterator[EpisodeResult]:
    import rclpy  # only this way of playing needs ROS

    from sim_bridges.ros_rollout import RosRollout
    from vla_policy_node.pace import Pace

    rclpy.init(args=sys.argv)
    stack.callback(rclpy.try_shutdown)
    player = RosRollout(contract, Pace(options.pace), report.watch if options.video else None)
    stack.callback(player.close)
    player.wait_until_ready()
    plan = _plan(options, contract)
    return (player.play(task, seed, options.time_limit) for task, seed in plan.episodes)


def _plan(options: argparse.Namespace, contract: RobotContract) -> Plan:
    sim = make_sim(options.sim, contract)
    try:
        return Plan.make(sim.tasks, options.tasks, options.episodes, options.per_task, options.seed)
    finally:
        sim.close()


class _Worker:
    """What one process needs to play; built at its first episode, because a pool hides the errors of a set-up."""

    _setup: tuple[str, str, RobotContract, float]
    _play: Callable[[tuple[str, int]], EpisodeResult] | None = None

    @classmethod
    def prepare(cls, sim_name: str, bundle: str, contract: RobotContract, time_limit_s: float) -> None:
        """Keep what `play` needs in this process; nothing is loaded yet. time_limit_s: of one episode."""
        cls._setup, cls._play = (sim_name, bundle, contract, time_limit_s), None

    @classmethod
    def play(cls, episode: tuple[str, int]) -> EpisodeResult:
        """Play one (task, seed) and return its result; the first call builds the sim and loads the policy."""
        if cls._play is None:
            cls._play = cls._build(*cls._setup)
        return cls._play(episode)

    @staticmethod
    def _build(sim_name: str, bundle: str, contract: RobotContract,
               time_limit_s: float) -> Callable[[tuple[str, int]], EpisodeResult]:
        from vla_policy.policy import Policy  # torch; a run over ROS must not load it

        sim = make_sim(sim_name, contract)
        policy = Policy.load(Path(bundle), robot=contract)
        policy.warm_up()
        return lambda episode: rollout(sim, policy, contract, *episode, time_limit_s)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected at least 1")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"got {value}, expected 0 or more")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {value}, expected seconds above 0")
    return value


def main() -> None:
    """The `evaluate` command; exit code 0 when all was played, whatever the success."""
    ros_arguments = sys.argv.index("--ros-args") if "--ros-args" in sys.argv else len(sys.argv)
    try:
        evaluate(parse_arguments(sys.argv[1:ros_arguments]))
    except VlaError as problem:
        sys.exit(f"evaluate: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

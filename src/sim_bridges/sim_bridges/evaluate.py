"""A policy bundle and a list of episodes in; live lines, a table, summary.json, a video and plots out.

`--over process` plays in this process (and `--workers` copies of it), `--over ros` through the running nodes; in
lockstep both send the same commands. `--chains` plays five instructions one after the other, as CALVIN does.
Use: `ros2 run sim_bridges evaluate --policy tabletop --per-task 25`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from sim_bridges.chains import Chain, ChainResult, summarise_chains
from sim_bridges.controls import CONTROLS
from sim_bridges.evaluate_report import Report
from sim_bridges.registry import SIMS, make_sim
from sim_bridges.results import EpisodeResult, summarise
from sim_bridges.rollout import rollout, rollout_chain
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError, nearest
from vla_policy.resources import find_contract, find_policy

Job = tuple[str, int] | Chain  # (task, seed), or a chain
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
    count.add_argument("--chains", type=_count, default=None,
                       help="chains of five instructions without a reset between them (not over ROS)")
    parser.add_argument("--control", default="none", choices=tuple(CONTROLS),
                        help="does it look and read? grey images, or swapped words in the instruction (not over ROS)")
    parser.add_argument("--seed", type=_seed, default=FIRST_SEED, help="first scene seed")
    parser.add_argument("--time-limit", type=_seconds, default=8.0,
                        help="an episode, or one instruction of a chain, fails after this sim time [s]")
    parser.add_argument("--workers", type=_count, default=1, help="processes, for --over process")
    parser.add_argument("--json", type=Path, default=None, help="where to write summary.json besides --output")
    parser.add_argument("--output", type=Path, default=None,
                        help="folder for summary.json, commands.npz, video and plots")
    parser.add_argument("--video", action="store_true", help="record the cameras (needs --over ros and --output)")
    options = parser.parse_args(arguments)
    if options.video and (options.output is None or options.over != "ros"):
        parser.error("--video needs cameras that run and a folder: add --over ros --output DIR")
    if options.over == "ros" and (options.chains or options.control != "none"):
        parser.error("--chains and --control play in one process; leave out --over ros")
    return options


def evaluate(options: argparse.Namespace) -> list[EpisodeResult]:
    """Play the plan, report each episode as it ends, write the outputs. Raises: VlaError."""
    contract = load_contract(find_contract(options.robot or options.sim))
    with ExitStack() as stack:
        report = stack.enter_context(Report(contract, options.output, options.json, options.video))
        if options.chains:
            return _evaluate_chains(options, contract, report, stack)
        if options.over == "ros":
            play = _over_ros(options, contract, report, stack)
        else:
            play = _in_process(options, contract, stack, _plan(options, contract).episodes)
        results = []
        for result in play:
            results.append(result)
            report.episode(result)
        report.finish(results, summarise(results))
    return results


def _evaluate_chains(options: argparse.Namespace, contract: RobotContract, report: Report,
                     stack: ExitStack) -> list[EpisodeResult]:
    played: list[ChainResult] = []
    for result in _in_process(options, contract, stack, _chains(options, contract)):
        played.append(result)
        report.chain(result)
    episodes = [episode for result in played for episode in result.episodes]
    report.finish(episodes, summarise(episodes) | {"chains": summarise_chains(played)})
    return episodes


def _chains(options: argparse.Namespace, contract: RobotContract) -> list[Chain]:
    sim = make_sim(options.sim, contract)
    try:
        if not hasattr(sim, "draw_chain"):
            raise ConfigError(f"--chains: got --sim {options.sim}, which plays single tasks only; leave out --chains")
        return [sim.draw_chain(options.seed + index) for index in range(options.chains)]
    finally:
        sim.close()


def _in_process(options: argparse.Namespace, contract: RobotContract, stack: ExitStack,
                jobs: Sequence[Job]) -> Iterator[EpisodeResult | ChainResult]:
    setup = _Setup(options.sim, str(find_policy(options.policy)), contract, options.time_limit, options.control)
    if options.workers == 1:
        _Worker.prepare(setup)
        return map(_Worker.play, jobs)
    pool = stack.enter_context(ProcessPoolExecutor(options.workers, get_context("spawn"), _Worker.prepare, (setup,)))
    return pool.map(_Worker.play, jobs)


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


@dataclass(frozen=True, slots=True)
class _Setup:
    """What a process needs to know before it can play. time_limit_s: of one instruction."""

    sim: str
    bundle: str
    contract: RobotContract
    time_limit_s: float
    control: str

    def build(self) -> Callable[[Job], EpisodeResult | ChainResult]:
        """Build the sim and load the policy."""
        from vla_policy.policy import Policy  # torch; a run over ROS must not load it

        sim = make_sim(self.sim, self.contract)
        policy = Policy.load(Path(self.bundle), robot=self.contract)
        policy.warm_up()
        led = CONTROLS[self.control](policy)

        def play(job: Job) -> EpisodeResult | ChainResult:
            """One episode, or one chain."""
            if isinstance(job, Chain):
                return rollout_chain(sim, led, self.contract, job, self.time_limit_s)
            return rollout(sim, led, self.contract, *job, self.time_limit_s)

        return play


class _Worker:
    """One process; what it plays with is built at its first job, because a pool hides the errors of a set-up."""

    _setup: _Setup
    _play: Callable[[Job], EpisodeResult | ChainResult] | None = None

    @classmethod
    def prepare(cls, setup: _Setup) -> None:
        """Keep what `play` needs in this process; nothing is loaded yet."""
        cls._setup, cls._play = setup, None

    @classmethod
    def play(cls, job: Job) -> EpisodeResult | ChainResult:
        """Play one job and return its result; the first call builds the sim and loads the policy."""
        if cls._play is None:
            cls._play = cls._setup.build()
        return cls._play(job)


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

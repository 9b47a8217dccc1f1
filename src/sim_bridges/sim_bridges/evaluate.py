"""A policy and a benchmark in; live lines, tables, results.json, a report, films and plots out.

`--over process` plays in this process, in `--workers` of them, or on a Ray cluster (`--ray`); `--over ros` through the
running nodes; in lockstep all send the same commands. An --output that was begun before is gone on with.
Use: `ros2 run sim_bridges evaluate --policy tabletop --per-task 25`, `… --chains 200`.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sim_bridges.evaluation.agents import describe
from sim_bridges.evaluation.benchmarks import find_benchmark
from sim_bridges.evaluation.controls import CONTROLS
from sim_bridges.evaluation.engines import play_here, play_in_processes, play_on_ray
from sim_bridges.evaluation.player import PlayerSpec
from sim_bridges.evaluation.report import Report
from sim_bridges.evaluation.store import ResultStore, in_order
from sim_bridges.evaluation.trials import CHAIN, Trial, TrialResult, chain_trials, episode_trials
from sim_bridges.registry import SIMS, find_sim, make_sim
from sim_bridges.results import EpisodeResult
from sim_bridges.rollout import LOCKSTEP, Timing
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import VlaError
from vla_policy.execution import Execution
from vla_policy.resources import find_contract, find_sim_contract
from vla_policy.types import seconds_to_ns

EPISODES = 10  # where nobody says how many


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="evaluate", description="Measure a policy in a simulator.")
    _add_what(parser)
    _add_where(parser)
    options = parser.parse_args(arguments)
    entry = find_sim(options.sim)
    options.seed = entry.first_seed if options.seed is None else options.seed
    if options.benchmark is not None and (options.episodes is not None or options.chains is not None):
        parser.error("--episodes and --chains are not of a --benchmark, which has its own; use --per-task")
    if options.video and (options.output is None or options.over != "ros"):
        parser.error("--video needs cameras that run and a folder: add --over ros --output DIR")
    if options.films and (options.output is None or options.over == "ros"):
        parser.error(
            "--films needs a folder and the policy in a process of its own: add --output DIR, leave out --over ros"
        )
    own = options.ray or options.workers > 1 or options.control or options.inference_delay or options.execution
    if options.over == "ros" and own:
        parser.error("--ray, --workers, --control, --execution and --inference-delay are of --over process; over ROS "
                     "the running nodes play")
    return options


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        default="tabletop",
        help="bundle (a folder or the name of a shipped one), ws://HOST:PORT of a policy server, expert, random",
    )
    parser.add_argument("--sim", default="tabletop", choices=sorted(SIMS), help="simulator")
    parser.add_argument("--robot", default=None, help="contract: a file or a name (default: the simulator's)")
    parser.add_argument("--tasks", default="all", help="all, or names separated by commas")
    parser.add_argument(
        "--benchmark", default=None, help="play a published set of the simulator's, as visual_matching of simpler"
    )
    count = parser.add_mutually_exclusive_group()
    count.add_argument("--episodes", type=_count, default=None, help="episodes in all, going round the tasks (10)")
    count.add_argument(
        "--per-task", type=_count, default=None, help="episodes of each task, or of each variant of a --benchmark"
    )
    count.add_argument("--chains", type=_count, default=None, help="chains of five instructions, each until one fails")
    parser.add_argument(
        "--seed", type=_seed, default=None, help="first seed of scenes or chains (default: the simulator's)"
    )
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        default=None,
        help="an instruction fails after this sim time [s] (default: the task's)",
    )
    parser.add_argument(
        "--control", default=None, choices=sorted(CONTROLS), help="show grey images, or say swapped words"
    )
    parser.add_argument(
        "--execution", default=None, choices=[str(mode) for mode in Execution],
        help="what the robot does while the policy computes (default: async)"
    )
    parser.add_argument(
        "--inference-delay", type=_delay, default=0.0, metavar="S", help="sim time that every inference takes [s]"
    )
    parser.add_argument(
        "--split", default=None, help="what the policy was trained on, for the report, as ABC-D of CALVIN"
    )


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--over", default="process", choices=("process", "ros"), help="in this process or through the nodes"
    )
    parser.add_argument(
        "--pace", default="lockstep", choices=("lockstep", "realtime"), help="pace of the running sim_node"
    )
    parser.add_argument("--workers", type=_count, default=1, help="processes, or actors of --ray")
    parser.add_argument("--ray", default=None, metavar="ADDRESS", help="of a Ray cluster's head, auto, or local")
    parser.add_argument("--json", type=Path, default=None, help="where to write summary.json besides --output")
    parser.add_argument(
        "--output", type=Path, default=None, help="folder for results, report, plots; gone on with if it is there"
    )
    parser.add_argument("--video", action="store_true", help="record the cameras (needs --over ros and --output)")
    parser.add_argument("--films", action="store_true", help="record the failures (needs --output)")


def evaluate(options: argparse.Namespace) -> list[EpisodeResult]:
    """Play what is not played yet, report each trial as it ends, write the outputs; returns all episodes.

    Raises: VlaError.
    """
    contract = load_contract(
        find_contract(options.robot) if options.robot else find_sim_contract(options.sim, options.tasks)
    )
    trials = _trials(options, contract)
    run = _run(options, contract)
    with ExitStack() as stack:
        store = None if options.output is None else ResultStore(options.output, run)
        found = {} if store is None else store.load()
        left = [trial for trial in trials if trial.name not in found]
        report = stack.enter_context(Report(contract, options.output, options.json, options.video, len(trials)))
        report.already(len(trials) - len(left))
        for result in _play(options, contract, left, report, stack):
            found[result.trial.name] = result
            if store is not None:
                store.add(result)
            report.trial(result)
        ended = in_order(trials, found)
        report.finish(run, ended)
    return [episode for result in ended for episode in result.episodes]


def _trials(options: argparse.Namespace, contract: RobotContract) -> tuple[Trial, ...]:
    if options.chains is not None:
        return chain_trials(options.chains, options.seed)
    if options.benchmark is not None:
        benchmark = find_benchmark(options.sim, options.benchmark)
        return benchmark.trials(contract, options.tasks, options.seed, options.per_task)
    sim = make_sim(options.sim, contract)
    try:
        count, extra = options.episodes or EPISODES, getattr(sim, "extra_tasks", ())
        return episode_trials(sim.tasks, options.tasks, count, options.per_task, options.seed, extra)
    finally:
        sim.close()


def _run(options: argparse.Namespace, contract: RobotContract) -> dict[str, Any]:
    """What run.json says: all that decides the results, and nothing else."""
    policy = {"policy": "of the running nodes"} if options.over == "ros" else describe(options.policy)
    return {
        "sim": options.sim,
        **{name: os.environ[name] for name in find_sim(options.sim).variables if os.environ.get(name)},
        "robot": contract.name,
        **policy,
        "split": options.split,
        "control": options.control,
        "chains": options.chains is not None,
        "benchmark": options.benchmark,
        "tasks": options.tasks,
        "first_seed": options.seed,
        "time_limit_s": options.time_limit,
        "pace": options.pace if options.over == "ros" else "lockstep",
        **_timing_words(options),
    }


def _timing_words(options: argparse.Namespace) -> dict[str, Any]:
    """Execution mode and delay, where they are not the usual ones."""
    timing = _timing(options)
    if timing == LOCKSTEP:
        return {}
    return {"execution": str(timing.execution), "inference_delay_s": options.inference_delay}


def _timing(options: argparse.Namespace) -> Timing:
    return Timing(Execution(options.execution or Execution.ASYNC), seconds_to_ns(options.inference_delay))


def _play(
    options: argparse.Namespace, contract: RobotContract, trials: Sequence[Trial], report: Report, stack: ExitStack
) -> Iterator[TrialResult]:
    if options.over == "ros":
        return _over_ros(options, contract, trials, report, stack)
    films = options.output / "failures" if options.films else None
    spec = PlayerSpec(
        options.sim, contract, options.policy, options.time_limit, options.control, films, _timing(options)
    )
    if options.ray is not None:
        return play_on_ray(spec, trials, options.ray, options.workers)
    if options.workers > 1:
        return play_in_processes(spec, trials, options.workers)
    return play_here(spec, trials)


def _over_ros(
    options: argparse.Namespace, contract: RobotContract, trials: Sequence[Trial], report: Report, stack: ExitStack
) -> Iterator[TrialResult]:
    import rclpy  # only this way of playing needs ROS

    from sim_bridges.ros_rollout import RosRollout
    from vla_policy_node.pace import Pace

    rclpy.init(args=sys.argv)
    stack.callback(rclpy.try_shutdown)
    player = RosRollout(contract, Pace(options.pace), report.watch if options.video else None)
    stack.callback(player.close)
    player.wait_until_ready()
    chains = make_sim(options.sim, contract) if options.chains is not None else None  # draws them, plays nothing
    for trial in trials:
        if trial.task != CHAIN:
            yield TrialResult(trial, (player.play(trial.task, trial.seed, options.time_limit),))
            continue
        chain = player.play_chain(chains.draw_chain(trial.seed), options.time_limit)
        yield TrialResult.of_chain(trial, chain)


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


def _delay(text: str) -> float:
    return 0.0 if float(text) == 0 else _seconds(text)


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

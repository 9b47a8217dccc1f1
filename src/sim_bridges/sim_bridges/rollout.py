"""A sim, a policy and a guard in, one EpisodeResult or ChainResult out: the loop of the nodes in one process.

The same Policy, Guard and Sim objects run behind the ROS topics; for the same task and seed a lockstep run over ROS
sends bit for bit the same commands.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sim_bridges.chains import Chain, ChainResult
from sim_bridges.results import EpisodeResult
from sim_bridges.sim import ChainSim, Episode, Sim
from vla_policy.action.guard import Guard
from vla_policy.action.safety import Decision, GuardState
from vla_policy.contract import RobotContract
from vla_policy.errors import InstructionError
from vla_policy.run import EndReason, SteppedPolicy
from vla_policy.types import Command, Observation, seconds_to_ns

Watcher = Callable[[Observation, Decision], None]


def rollout(sim: Sim, policy: SteppedPolicy, contract: RobotContract, task: str, seed: int, time_limit_s: float,
            watch: Watcher | None = None) -> EpisodeResult:
    """Play one episode to success, time limit or safety stop.

    watch: called before each control period with the observation (with images only where the policy looks) and the
    guard's decision. Raises: VlaError for an unknown task.
    """
    return play(sim, policy, contract, sim.reset(task, seed), time_limit_s, watch)


def rollout_chain(sim: ChainSim, policy: SteppedPolicy, contract: RobotContract, chain: Chain, time_limit_s: float,
                  watch: Watcher | None = None) -> ChainResult:
    """Play a chain until an instruction fails. time_limit_s: of each instruction. watch: as in `rollout`."""
    episodes = [play(sim, policy, contract, sim.begin_chain(chain), time_limit_s, watch)]
    while episodes[-1].success and len(episodes) < len(chain.steps):
        episodes.append(play(sim, policy, contract, sim.next_task(), time_limit_s, watch))
    return ChainResult(chain, tuple(episodes))


def play(sim: Sim, policy: SteppedPolicy, contract: RobotContract, episode: Episode, time_limit_s: float,
         watch: Watcher | None = None) -> EpisodeResult:
    """Play the episode that the sim stands at the beginning of; policy and guard start afresh."""
    start = time.perf_counter()
    guard, log = Guard(contract, silence_s=math.inf), _Log()
    reason, message = _play(sim, policy, guard, contract, episode.instruction, seconds_to_ns(time_limit_s), log, watch)
    wall_s = time.perf_counter() - start
    return EpisodeResult(
        task=episode.task, seed=episode.seed, instruction=episode.instruction, success=reason is EndReason.SUCCEEDED,
        reason=reason.name, message=message, steps=len(log.sent), wall_s=wall_s,
        control_rate_hz=len(log.sent) / wall_s,
        commands=command_rows(log.sent, contract), requested=command_rows(log.raw, contract),
        latencies_ms=dict(log.latencies_ms))


class _Log:
    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.raw: list[Command] = []
        self.latencies_ms: defaultdict[str, list[float]] = defaultdict(list)


def _play(sim: Sim, policy: SteppedPolicy, guard: Guard, contract: RobotContract, instruction: str, limit_ns: int,
          log: _Log, watch: Watcher | None) -> tuple[EndReason, str]:
    try:
        policy.reset(instruction)
    except InstructionError as problem:
        return EndReason.INSTRUCTION_REFUSED, str(problem)
    first_ns = next_tick_ns = sim.time_ns
    while True:
        due = sim.time_ns >= next_tick_ns
        if due and sim.time_ns - first_ns >= limit_ns:
            return EndReason.TIME_LIMIT, f"the time limit of {limit_ns / 1e9:g} s passed"
        observation = sim.observe(images=due)
        if due:
            guard.accept(policy.step(observation), time.monotonic_ns())
            next_tick_ns += policy.period_ns
            for stage, value in policy.timings.items():
                log.latencies_ms[stage].append(value)
        decision = guard.command(observation.stamp_ns, observation, time.monotonic_ns())
        if watch is not None:
            watch(observation, decision)
        if decision.status.state is GuardState.STOPPED:
            return EndReason.SAFETY_STOP, decision.status.message
        log.sent.append(decision.sent)
        log.raw.append(decision.raw)
        sim.advance(decision.sent, contract.control_dt_ns)
        if sim.success():
            return EndReason.SUCCEEDED, "the success condition holds"


def command_rows(commands: Sequence[Command], contract: RobotContract) -> NDArray[np.float64]:
    """Commands as float64 (steps, C), columns as `contract.command_names`."""
    rows = [np.append(c.arm, [] if c.gripper is None else c.gripper) for c in commands]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(contract.command_names))

"""A sim, a policy and a guard in, one EpisodeResult or ChainResult out: the loop of the nodes in one process.

The same Policy, Guard and Sim objects run behind the ROS topics; for the same task and seed a lockstep run over ROS
sends bit for bit the same commands.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_bridges.chains import Chain, ChainResult
from sim_bridges.results import EpisodeResult, joined
from sim_bridges.sim import ChainSim, Episode, Sim
from vla_policy.action.guard import Guard
from vla_policy.action.safety import Decision, GuardState
from vla_policy.contract import RobotContract
from vla_policy.errors import InstructionError
from vla_policy.execution import Execution, PacedPolicy
from vla_policy.run import EndReason, SteppedPolicy
from vla_policy.types import ActionChunk, Command, Observation, seconds_to_ns

Watcher = Callable[[Observation, Decision], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """How a policy is run. execution: what the robot does while it computes. delay_ns: sim time that computing takes;
    0: time waits for the policy, as in lockstep.
    """

    execution: Execution = Execution.ASYNC
    delay_ns: int = 0


LOCKSTEP = Timing()


def rollout(sim: Sim, policy: SteppedPolicy, contract: RobotContract, task: str, seed: int,
            time_limit_s: float | None = None, watch: Watcher | None = None,
            timing: Timing = LOCKSTEP) -> EpisodeResult:
    """Play one episode, with all instructions that it has, to success, time limit or safety stop.

    time_limit_s: of each instruction; None: the episode's own. watch: called before each control period with the
    observation (with images only where the policy looks) and the guard's decision. Raises: VlaError for an unknown
    task, or a policy that cannot be run in that execution mode.
    """
    episode = sim.reset(task, seed)
    parts = [play(sim, policy, contract, episode, time_limit_s, watch, timing)]
    while goes_on(parts[-1], episode.more):
        episode = sim.next_task()
        parts.append(play(sim, policy, contract, episode, time_limit_s, watch, timing))
    return joined(parts)


def goes_on(part: EpisodeResult, more: bool) -> bool:
    """Whether an episode's next instruction follows on this part. more: the episode has one."""
    return more and part.reason == EndReason.TIME_LIMIT.name


def rollout_chain(sim: ChainSim, policy: SteppedPolicy, contract: RobotContract, chain: Chain,
                  time_limit_s: float | None = None, watch: Watcher | None = None,
                  timing: Timing = LOCKSTEP) -> ChainResult:
    """Play a chain until an instruction fails. time_limit_s, watch and timing: as in `rollout`."""
    episodes = [play(sim, policy, contract, sim.begin_chain(chain), time_limit_s, watch, timing)]
    while episodes[-1].success and len(episodes) < len(chain.steps):
        episodes.append(play(sim, policy, contract, sim.next_task(), time_limit_s, watch, timing))
    return ChainResult(chain, tuple(episodes))


def play(sim: Sim, policy: SteppedPolicy, contract: RobotContract, episode: Episode,
         time_limit_s: float | None = None, watch: Watcher | None = None, timing: Timing = LOCKSTEP) -> EpisodeResult:
    """Play the instruction that the sim stands at the beginning of; policy and guard start afresh."""
    start = time.perf_counter()
    limit_ns = seconds_to_ns(episode.time_limit_s if time_limit_s is None else time_limit_s)
    guard, log = Guard(contract, blend=timing.execution.blend, silence_s=math.inf), _Log()
    late = _LatePolicy(PacedPolicy(policy, contract, timing.execution), guard, timing.delay_ns, log)
    reason, message = _play(sim, late, guard, contract, episode.instruction, limit_ns, log, watch)
    wall_s = time.perf_counter() - start
    return EpisodeResult(
        task=episode.task, seed=episode.seed, instruction=episode.instruction, success=reason is EndReason.SUCCEEDED,
        reason=reason.name, message=message, steps=log.periods, wall_s=wall_s,
        control_rate_hz=log.periods / wall_s,
        commands=command_rows(log.sent, contract), requested=command_rows(log.raw, contract),
        latencies_ms=dict(log.latencies_ms))


class _Log:
    """periods: control periods that passed. sent, raw: a command of each; none before the first chunk came."""

    def __init__(self) -> None:
        self.periods = 0
        self.sent: list[Command] = []
        self.raw: list[Command] = []
        self.latencies_ms: defaultdict[str, list[float]] = defaultdict(list)


class _LatePolicy:
    """A policy whose chunks reach the guard `delay_ns` of sim time after their observation."""

    def __init__(self, paced: PacedPolicy, guard: Guard, delay_ns: int, log: _Log) -> None:
        self.reset = paced.reset
        self._paced, self._guard, self._delay_ns, self._log = paced, guard, delay_ns, log
        self._computing: tuple[int, ActionChunk] | None = None  # when it is done, what comes of it

    def is_due(self, now_ns: int) -> bool:
        """Whether it looks at an observation of now; hands over first what is done by now."""
        self._hand_over(now_ns)
        return self._computing is None and self._paced.is_due(now_ns)

    @property
    def is_computing(self) -> bool:
        """Whether an inference is under way."""
        return self._computing is not None

    def step(self, observation: Observation) -> None:
        """Begin an inference."""
        self._computing = observation.stamp_ns + self._delay_ns, self._paced.step(observation)
        for stage, value in self._paced.policy.timings.items():
            self._log.latencies_ms[stage].append(value)
        self._hand_over(observation.stamp_ns)

    def _hand_over(self, now_ns: int) -> None:
        if self._computing is None or self._computing[0] > now_ns:
            return
        (done_ns, chunk), self._computing = self._computing, None
        self._guard.accept(self._paced.release(chunk, done_ns), time.monotonic_ns())


def _play(sim: Sim, policy: _LatePolicy, guard: Guard, contract: RobotContract, instruction: str, limit_ns: int,
          log: _Log, watch: Watcher | None) -> tuple[EndReason, str]:
    try:
        policy.reset(instruction)
    except InstructionError as problem:
        return EndReason.INSTRUCTION_REFUSED, str(problem)
    first_ns = sim.time_ns
    while True:
        due = policy.is_due(sim.time_ns)
        if (due or policy.is_computing) and sim.time_ns - first_ns >= limit_ns:
            return EndReason.TIME_LIMIT, f"the time limit of {limit_ns / 1e9:g} s passed"
        observation = sim.observe(images=due)
        if due:
            policy.step(observation)
        decision = guard.command(observation.stamp_ns, observation, time.monotonic_ns())
        if watch is not None:
            watch(observation, decision)
        if decision.status.state is GuardState.STOPPED:
            return EndReason.SAFETY_STOP, decision.status.message
        log.periods += 1
        if decision.sent is not None:
            log.sent.append(decision.sent)
            log.raw.append(decision.raw)
        sim.advance(decision.sent, contract.control_dt_ns)
        if sim.success():
            return EndReason.SUCCEEDED, "the success condition holds"


def command_rows(commands: Sequence[Command], contract: RobotContract) -> NDArray[np.float64]:
    """Commands as float64 (steps, C), columns as `contract.command_names`."""
    rows = [np.append(c.arm, [] if c.gripper is None else c.gripper) for c in commands]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(contract.command_names))

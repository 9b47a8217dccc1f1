"""A policy and an execution mode in; when it is asked next, what it goes on with and what is sent of its chunks, out.

A robot wants 50 to 100 commands a second, a model gives a few chunks a second, each some time after its observation.
The mode says what happens in between. Nodes, rollouts and evaluations share this class.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.schedule import Blend
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError
from vla_policy.types import ActionChunk, InFlight, Observation, seconds_to_ns

if TYPE_CHECKING:
    from vla_policy.run import SteppedPolicy

DELAYS_KEPT = 10  # the longest of the last ones is expected next: too long costs freshness, too short a jump
STANDSTILL_S = 5.0  # a blocking chunk holds the robot for so long; the guard's watchdog is what ends a longer wait


class Execution(StrEnum):
    """What the robot does while the policy computes."""

    BLOCKING = "blocking"  # stands still, then plays the rows from the first one on
    ASYNC = "async"  # goes on with the chunk before; the new one is joined at the row for now, the way made up for
    ENSEMBLE = "ensemble"  # goes on likewise, and all chunks that have a row for now are averaged
    RTC = "rtc"  # goes on likewise, and the new chunk is sampled so that it goes on from the rows played meanwhile

    @property
    def blend(self) -> Blend:
        """What the guard does where chunks overlap."""
        return Blend.TEMPORAL_ENSEMBLE if self is Execution.ENSEMBLE else Blend.LATEST


class PacedPolicy:
    """A policy in an execution mode. For each observation that `is_due`: `step`, then `release` when it is computed.

    slack_ns: how much earlier than its tick an observation may be stamped (camera jitter).
    Real-time chunking: Black et al., "Real-Time Execution of Action Chunking Flow Policies" (arXiv 2506.07339).
    """

    def __init__(self, policy: SteppedPolicy, contract: RobotContract, execution: Execution = Execution.ASYNC,
                 slack_ns: int = 0) -> None:
        """Raises: ConfigError for real-time chunking with a policy that cannot go on from another chunk."""
        check_execution(policy, execution)
        self.policy = policy
        self.execution = execution
        self.slack_ns = slack_ns
        self._contract = contract
        self._grid_ns: int | None = None  # where the grid of ticks begins
        self._next_ns: int | None = None
        self._sent: ActionChunk | None = None
        self._delays_ns: deque[int] = deque(maxlen=DELAYS_KEPT)

    def reset(self, instruction: str) -> None:
        """Begin an episode. Raises: InstructionError."""
        self.policy.reset(instruction)
        self._grid_ns = self._next_ns = self._sent = None

    def is_due(self, stamp_ns: int) -> bool:
        """Whether an observation of `stamp_ns` is one to step on. Ticks that a slow inference missed are skipped."""
        return self._next_ns is None or stamp_ns >= self._next_ns - self.slack_ns

    def may_wait(self, stamp_ns: int) -> bool:
        """Whether an observation of `stamp_ns` is not yet late for its tick."""
        return self._next_ns is not None and stamp_ns < self._next_ns + self.slack_ns

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """One inference. Raises: what the policy raises."""
        in_flight = self._in_flight(observation.stamp_ns, run_id)
        if in_flight is None:
            chunk = self.policy.step(observation, run_id)
        else:
            chunk = self.policy.step(observation, run_id, in_flight)
        if self._grid_ns is None:
            self._grid_ns = observation.stamp_ns
        period_ns = self.policy.period_ns
        done = (observation.stamp_ns - self._grid_ns + self.slack_ns) // period_ns
        self._next_ns = self._grid_ns + (done + 1) * period_ns
        return chunk

    def release(self, chunk: ActionChunk, now_ns: int) -> ActionChunk:
        """What is to be sent of a chunk that `step` gave, now that it is computed. now_ns: ROS time.

        A blocking chunk bears this time as its stamp: the robot stood still since the observation.
        """
        self._delays_ns.append(max(0, now_ns - chunk.stamp_ns))
        if self.execution is Execution.BLOCKING:
            chunk = self._from_now_on(chunk, max(now_ns, chunk.stamp_ns))
        elif self.execution is Execution.ASYNC and self._contract.action.kind is ActionKind.EE_DELTA:
            chunk = self._made_up_for(chunk, (now_ns - chunk.stamp_ns) // chunk.dt_ns)
        self._sent = chunk
        return chunk

    def _made_up_for(self, chunk: ActionChunk, missed: int) -> ActionChunk:
        """The chunk with the way that its first `missed` rows had in mind, less the way that the robot went meanwhile,
        spread over the rows that come next. Steps say nothing of where they begin: without this, what the chunk before
        corrected meanwhile is corrected twice. After a period or more the way is too long to be made up for beside the
        gripper, which keeps its time: measured, it then does harm.
        """
        if not 1 <= missed < chunk.execute_rows:
            return chunk
        went = np.zeros(6)
        if self._sent is not None and self._sent.run_id == chunk.run_id:
            first = round((chunk.stamp_ns - self._sent.stamp_ns) / chunk.dt_ns)
            went = self._sent.values[first:first + missed, :6].sum(0)
        values = chunk.values.copy()
        next_rows = values[missed:missed + chunk.execute_rows, :6]
        next_rows += (chunk.values[:missed, :6].sum(0) - went) / len(next_rows)
        return replace(chunk, values=values)

    def _from_now_on(self, chunk: ActionChunk, now_ns: int) -> ActionChunk:
        """The rows to execute, the first of them now, and then a standstill until the next chunk comes."""
        self._grid_ns, self._next_ns = now_ns, now_ns + chunk.execute_rows * chunk.dt_ns
        rows = chunk.values[: chunk.execute_rows]
        count = -(-seconds_to_ns(STANDSTILL_S) // chunk.dt_ns)
        return replace(chunk, stamp_ns=now_ns, values=np.vstack([rows, np.tile(self._still(rows[-1]), (count, 1))]))

    def _still(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """The row that keeps the robot where `row` (A,) brought it."""
        if self._contract.action.kind is not ActionKind.EE_DELTA:
            return row
        still = np.zeros_like(row)
        if self._contract.action.gripper is not None:
            still[-1] = row[-1]
        return still

    def _in_flight(self, stamp_ns: int, run_id: int) -> InFlight | None:
        sent = self._sent
        if self.execution is not Execution.RTC or sent is None or sent.run_id != run_id:
            return None
        rows = sent.values[round((stamp_ns - sent.stamp_ns) / sent.dt_ns):]
        frozen = min(len(rows), -(-max(self._delays_ns) // sent.dt_ns))
        return InFlight(rows, frozen) if frozen else None


def check_execution(policy: SteppedPolicy, execution: Execution) -> None:
    """Raises: ConfigError for a mode that the policy cannot be run in, naming the action heads that can."""
    if execution is not Execution.RTC or getattr(policy, "continues_chunks", False):
        return
    head = getattr(policy, "action_head", "")
    whose = f"action head '{head}' gives" if head else "this policy gives"
    raise ConfigError(f"execution: got rtc, but {whose} its chunks in one piece and cannot go on from another; use "
                      "execution async or ensemble, or a policy with action_head flow or diffusion")

"""Wishes, the robot's state, the guard's word and two clocks in; an operator's chunks and their end out.

Each hold of the dead-man switch is a run of its own for the guard: it begins with the first chunk and ends with the
release, after which the arm holds. The operator keeps control until it is handed back. "now" is ROS time, "steady" a
clock that only moves forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vla_policy.action.checks import state_fault
from vla_policy.contract import RobotContract
from vla_policy.teleop.planner import Planner
from vla_policy.teleop.wish import Wish
from vla_policy.types import NS_PER_S, ActionChunk, Observation, seconds_to_ns

REACH_S = 0.3  # how far the rows of a chunk reach: for so long a robot moves on when the teleoperation dies
MOST_ELAPSED_S = 0.1  # a longer gap between two chunks is not made up for
_RATE_SLACK = 0.75  # of a control period: states that jitter must not halve the rate of chunks


class TeleopState(IntEnum):
    """Numbers of vla_msgs/TeleopStatus.state."""

    OFF = 0
    HOLDING = 1
    DRIVING = 2
    BLOCKED = 3


@dataclass(frozen=True, slots=True)
class GuardWord:
    """What the guard says.

    fault: why nothing may move, None: it may. has_control: an operator has taken over. run_id: of the run that drives
    or drove last.
    """

    fault: str | None
    has_control: bool
    run_id: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done now. chunk: to send. ended_run_id: whose end is to be told, 0: none. warnings: news, once."""

    state: TeleopState
    alive: bool
    message: str
    chunk: ActionChunk | None = None
    ended_run_id: int = 0
    warnings: tuple[str, ...] = ()


class Operator:
    """Dead-man switch, silence and take-over of one operator.

    device, switch: what it and its dead-man switch are called in sentences. silence_s: a device that is silent for
    longer counts as released. first_run_id: greater than that of any run of before.
    """

    def __init__(self, contract: RobotContract, planner: Planner, *, device: str, silence_s: float, first_run_id: int,
                 reach_s: float = REACH_S, switch: str = "the dead-man switch") -> None:
        self._contract = contract
        self._planner = planner
        self._device, self._switch = device, switch
        self._silence_ns, self._silence_s = seconds_to_ns(silence_s), silence_s
        self._reach_ns = seconds_to_ns(reach_s)
        self._run_id = first_run_id - 1
        self.driving = False
        self._heeded = False  # the guard named this run
        self._ended_run_id = 0
        self._armed = False  # the switch was seen released; one that is stuck or was held through a fault moves nothing
        self._wish: Wish | None = None
        self._heard_ns: int | None = None
        self._mistake = ""
        self._refusal = ""
        self._silent = False
        self.opening = 1.0  # of the gripper, as sent last: 0 closed .. 1 open
        self._chunk_stamp_ns = -1
        self._chunk_steady_ns = 0
        self._warnings: list[str] = []

    # ---- the device -----------------------------------------------------------------------------------------------

    def hear(self, wish: Wish, steady_ns: int) -> None:
        """The device said what is wanted."""
        if self._mistake:
            self._warnings.append(f"{self._device} can be read again")
        self._wish, self._heard_ns, self._mistake = wish, steady_ns, ""

    def refuse(self, mistake: str) -> None:
        """The device said something that cannot be used; it counts as released."""
        if not self._mistake:
            self._warnings.append(mistake)
        self._wish, self._mistake = None, mistake
        self.release()

    def toggle_gripper(self) -> bool:
        """Open the gripper, or close it when it is open; False: not while nobody drives."""
        if self.driving:
            self.opening = 0.0 if self.opening > 0.5 else 1.0
        return self.driving

    def hear_opening(self, opening: float) -> None:
        """What the gripper was sent, by whomever; the operator goes on from there."""
        if not self.driving:
            self.opening = opening

    def release(self) -> None:
        """Cease to drive, whatever the switch says, until it is released and held again."""
        self._armed = False
        self._end()

    # ---- one step ---------------------------------------------------------------------------------------------------

    def step(self, now_ns: int, steady_ns: int, state: Observation | None, guard: GuardWord) -> Step:
        """What is to be done now; call it for every message of device and robot, and regularly."""
        alive = self._listen(steady_ns)
        obstacle = guard.fault or (None if self.driving else state_fault(self._contract, state, now_ns))
        held = alive and self._wish is not None and self._wish.dead_man
        if alive and not held:
            self._armed, self._refusal = True, ""
        if self.driving and (guard.fault is not None or self._is_displaced(guard)):
            self.release()
        elif self.driving and not held:
            self._end()
        elif held and self._armed and not self.driving:
            self._begin(state, obstacle)
        chunk = self._chunk(now_ns, steady_ns, state) if self.driving and state is not None else None
        ended_run_id, self._ended_run_id = self._ended_run_id, 0
        warnings, self._warnings = tuple(self._warnings), []
        return Step(*self._word(alive, held, guard, obstacle), chunk, ended_run_id, warnings)

    def _listen(self, steady_ns: int) -> bool:
        """Whether the device speaks; its silence and its return are told once."""
        if self._mistake or self._heard_ns is None:
            return False
        silent = steady_ns - self._heard_ns > self._silence_ns
        if silent and not self._silent and self._wish.dead_man:
            self._warnings.append(f"{self._device} was silent for more than {self._silence_s:g} s with the dead-man "
                                  "switch held: it counts as released, the arm holds")
            self._silent = True
            self.release()
        elif not silent and self._silent:
            self._warnings.append(f"{self._device} speaks again; release {self._switch} and hold it again to drive")
            self._silent = False
        return not silent

    def _is_displaced(self, guard: GuardWord) -> bool:
        """Whether the guard heeded this run and now heeds another: a second operator drives. It is told once."""
        ours = guard.run_id == self._run_id
        displaced = self._heeded and not ours
        self._heeded = ours
        if displaced:
            self._warnings.append(f"run {guard.run_id} drives the robot now, perhaps another operator's; release "
                                  f"{self._switch} and hold it again to take over")
        return displaced

    def _begin(self, state: Observation | None, obstacle: str | None) -> None:
        refusal = obstacle or self._planner.begin(state, self._wish)
        if refusal:
            self._armed, self._refusal = False, refusal
            self._warnings.append(f"the arm holds: {refusal}")
            return
        self._run_id += 1
        self.driving, self._heeded = True, False
        self._chunk_stamp_ns = -1

    def _end(self) -> None:
        if self.driving:
            self.driving, self._ended_run_id = False, self._run_id

    def _chunk(self, now_ns: int, steady_ns: int, state: Observation) -> ActionChunk | None:
        """A chunk for each newer state, no more often than commands are sent."""
        first = self._chunk_stamp_ns < 0
        elapsed_ns = 0 if first else steady_ns - self._chunk_steady_ns
        if not first and (state.stamp_ns <= self._chunk_stamp_ns
                          or elapsed_ns < _RATE_SLACK * self._contract.control_dt_ns):
            return None
        self._chunk_stamp_ns, self._chunk_steady_ns = state.stamp_ns, steady_ns
        dt_ns = self._contract.action_dt_ns
        count = max(2, -((state.stamp_ns - now_ns - self._reach_ns) // dt_ns))
        ahead_s = (state.stamp_ns + dt_ns * np.arange(count) - now_ns) / NS_PER_S
        arm = self._planner.rows(self._wish, state, ahead_s, min(elapsed_ns / NS_PER_S, MOST_ELAPSED_S))
        if self._contract.action.gripper is None:
            return ActionChunk(state.stamp_ns, dt_ns, arm, 1, self._run_id)
        if self._wish.opening is not None:
            self.opening = self._wish.opening
        values = np.column_stack([arm, np.full(count, self.opening)])
        return ActionChunk(state.stamp_ns, dt_ns, values, 1, self._run_id)

    def _word(self, alive: bool, held: bool, guard: GuardWord, obstacle: str | None) -> tuple[TeleopState, bool, str]:
        if guard.fault is not None:
            return TeleopState.BLOCKED, alive, guard.fault
        if self.driving:
            return TeleopState.DRIVING, alive, ""
        state = TeleopState.HOLDING if guard.has_control else TeleopState.OFF
        if not alive:
            return state, alive, self._mistake or f"{self._device} is silent"
        if held:
            return state, alive, self._refusal or f"release {self._switch}, then hold it again to drive"
        return state, alive, obstacle or f"hold {self._switch} to {'drive' if guard.has_control else 'take over'}"

"""Chunks, the robot's state and two clocks in; for each instant one limited command out, or a latched stop.

The last word before the robot. Pure and deterministic: the guard node and in-process rollouts run this class.
"now" is ROS time (it may be simulated, stop or jump), "steady" is a clock that only moves forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from vla_policy.action.limits import GripperLimiter, arm_limiter, outside
from vla_policy.action.schedule import Blend, ChunkSchedule, ScheduledRow
from vla_policy.contract import RobotContract
from vla_policy.types import NS_PER_S, ActionChunk, Command, Observation

_SAME = 1e-9  # values closer than this (m/s, rad/s, m, rad, fraction) differ by rounding only


class GuardState(IntEnum):
    """Numbers of vla_msgs/SafetyStatus.state."""

    IDLE = 0
    ACTIVE = 1
    LIMITING = 2
    STOPPED = 3


class StopReason(IntEnum):
    """Numbers of vla_msgs/SafetyStatus.reason."""

    NONE = 0
    ESTOP = 1
    CHUNK_INVALID = 2
    CHUNK_STALE = 3
    SILENCE = 4
    STATE_STALE = 5
    OUT_OF_BOUNDS = 6
    JUMP = 7
    CLOCK_JUMP = 8


@dataclass(frozen=True, slots=True)
class SafetyState:
    """What the guard does and why. limited: for each of `contract.command_names`, whether it was reduced."""

    state: GuardState
    reason: StopReason
    message: str
    limited: tuple[bool, ...]
    run_id: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to send for one instant.

    raw: what the policy asked for, None where it asked for nothing. sent: what the robot gets, None: nothing.
    run_id: the run that `sent` serves, 0: the guard's own stop or hold. observation_stamp_ns and row: of raw.
    """

    raw: Command | None
    sent: Command | None
    status: SafetyState
    run_id: int = 0
    observation_stamp_ns: int = 0
    row: int = 0


class _Stop(Exception):
    """Ends a check with the reason to stop."""

    def __init__(self, reason: StopReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Guard:
    """Schedule, limits and watchdog of one robot.

    silence_s: overrides the contract's; `math.inf` lifts it, for a simulator that waits for its policy.
    """

    def __init__(self, contract: RobotContract, *, blend: Blend = Blend.LATEST,
                 silence_s: float | None = None) -> None:
        self._contract = contract
        self._silence_s = contract.watchdog.silence_s if silence_s is None else silence_s
        self._schedule = ChunkSchedule(contract, blend)
        self._arm = arm_limiter(contract)
        gripper = contract.action.gripper
        self._gripper = GripperLimiter(gripper.max_speed_per_s) if gripper else None
        self._unlimited = (False,) * len(contract.command_names)
        self._run_id = 0  # of the run that is active or was last
        self._running = False
        self._over: set[int] = set()  # runs that ended, were stopped, or came while stopped
        self._estop_pressed = False
        self._chunk_steady_ns = 0  # when the newest chunk came
        self._clocks_ns: tuple[int, int] | None = None  # (now, steady) of the last look within this run
        self._sent_ns: int | None = None  # stamp of the last command of this run
        self._ignored_chunks = 0
        self.status = SafetyState(GuardState.IDLE, StopReason.NONE, "no run yet", self._unlimited, 0)

    @property
    def dropped_chunks(self) -> int:
        """Chunks that were no newer than one already here."""
        return self._schedule.dropped

    @property
    def ignored_chunks(self) -> int:
        """Chunks that came while stopped, or of a run that was over."""
        return self._ignored_chunks

    @property
    def run_id(self) -> int:
        """The run that is active or was last; 0 before the first."""
        return self._run_id

    def accept(self, chunk: ActionChunk, steady_ns: int) -> None:
        """Take a chunk. One of a new run starts that run afresh; an invalid one stops the robot.

        Ignored, and counted: chunks while stopped, and chunks of a run that has ended or was stopped.
        """
        if self.status.state is GuardState.STOPPED:
            self._over.add(chunk.run_id)  # else a reset would let this run set the robot in motion
            self.status = replace(self.status, run_id=chunk.run_id)
        if chunk.run_id in self._over:
            self._ignored_chunks += 1
            return
        mistake = _mistake(self._contract, chunk)
        if mistake is not None:
            self.refuse(chunk.run_id, mistake)
            return
        if chunk.run_id != self._run_id:
            self._begin(chunk.run_id)
        if self._schedule.add(chunk):
            self._chunk_steady_ns = steady_ns

    def refuse(self, run_id: int, mistake: str) -> None:
        """Stop because of a chunk that cannot be used; its run is over."""
        self._over.add(run_id)
        self.stop(StopReason.CHUNK_INVALID, f"chunk of run {run_id} refused: {mistake}", run_id)

    def end_run(self, run_id: int, steady_ns: int) -> None:
        """The policy says that a run is over: the robot holds. Ignored for any but the active run."""
        if self._running and run_id == self._run_id:
            self._end()
            self._set(GuardState.IDLE, StopReason.NONE, f"run {run_id} ended, the robot holds")

    def must_wait(self, now_ns: int) -> bool:
        """lockstep: whether a command for now is early. Always so without a run, never when stopped."""
        if self.status.state is GuardState.STOPPED:
            return False
        return not self._running or self._schedule.must_wait(now_ns)

    def watch(self, now_ns: int, steady_ns: int) -> None:
        """Stop when the policy fell silent or the clock jumped, also while no command is asked for."""
        try:
            self._check_clocks(now_ns, steady_ns)
        except _Stop as stop:
            self.stop(stop.reason, stop.message)

    def command(self, now_ns: int, state: Observation | None, steady_ns: int) -> Decision:
        """The command for `now_ns`. state: newest joints and pose, images unused; None: none came yet."""
        if not self._running:
            return self._hold(now_ns, state)
        scheduled, raw = None, None
        try:
            self._check_clocks(now_ns, steady_ns)
            state = self._checked_state(now_ns, state)
            scheduled = self._row(now_ns)
            raw = self._request(now_ns, scheduled)
            jump = self._arm.jump(raw.arm, state)
            if jump is not None:
                raise _Stop(StopReason.JUMP, f"{jump} (jump_factor {self._contract.limits.jump_factor:g})")
        except _Stop as stop:
            self.stop(stop.reason, stop.message)
            return self._hold(now_ns, state, raw, scheduled)
        sent = self._limit(now_ns, raw, state)
        return Decision(raw, sent, self.status, self._run_id, scheduled.stamp_ns, scheduled.row)

    def estop(self, on: bool) -> None:
        """The emergency stop was pressed or released. Releasing does not end the stop: `reset` does."""
        self._estop_pressed = on
        if on:
            self.stop(StopReason.ESTOP, "emergency stop requested")

    def stop(self, reason: StopReason, message: str, run_id: int | None = None) -> None:
        """Latch a stop. The first reason stays until `reset`. run_id: the run concerned, if not the last one."""
        if self.status.state is not GuardState.STOPPED:
            self._end()
            self._set(GuardState.STOPPED, reason, message)
            if run_id is not None:
                self.status = replace(self.status, run_id=run_id)

    def reset(self) -> tuple[bool, str]:
        """End a latched stop; the robot holds until a new run begins. Returns (ended, sentence)."""
        if self._estop_pressed:
            return False, "the emergency stop is still pressed; release it, then reset"
        if self.status.state is not GuardState.STOPPED:
            return True, "nothing to reset, the guard is not stopped"
        was = self.status.reason
        self._set(GuardState.IDLE, StopReason.NONE, f"reset after {was.name}; waiting for a new run")
        return True, self.status.message

    def _end(self) -> None:
        if self._run_id:
            self._over.add(self._run_id)
        self._running = False
        self._schedule.clear()

    def _begin(self, run_id: int) -> None:
        self._end()
        self._run_id = run_id
        self._running = True
        self._clocks_ns = None
        self._sent_ns = None
        self._arm.begin()
        if self._gripper:
            self._gripper.begin()
        self._set(GuardState.ACTIVE, StopReason.NONE, f"run {run_id} drives the robot")

    def _check_clocks(self, now_ns: int, steady_ns: int) -> None:
        """Raises _Stop when ROS time went back or outran the steady clock, or when chunks ceased to come."""
        if not self._running:
            return
        before, self._clocks_ns = self._clocks_ns, (now_ns, steady_ns)
        if before is not None:
            gone_ns = now_ns - before[0]
            if gone_ns < 0:
                raise _Stop(StopReason.CLOCK_JUMP, f"time went back by {-gone_ns / NS_PER_S:.3f} s")
            # A process that slept sees both clocks ahead; that is silence or a stale chunk, not a jump.
            leap_s = (gone_ns - (steady_ns - before[1])) / NS_PER_S
            if leap_s > self._contract.watchdog.clock_jump_s:
                raise _Stop(StopReason.CLOCK_JUMP, f"time leapt forward by {leap_s:.3f} s, expected at most "
                            f"{self._contract.watchdog.clock_jump_s:g} s")
        silence_s = (steady_ns - self._chunk_steady_ns) / NS_PER_S
        if silence_s > self._silence_s:
            raise _Stop(StopReason.SILENCE, f"no chunk for {silence_s:.2f} s, expected one every "
                        f"{self._silence_s:g} s; is the policy alive?")

    def _checked_state(self, now_ns: int, state: Observation | None) -> Observation:
        """The state if it is whole, fresh and within bounds. Raises _Stop."""
        expected = "expected joints" + (" and pose" if self._contract.pose else "")
        if state is None or (self._contract.pose is not None and state.pose is None):
            raise _Stop(StopReason.STATE_STALE, f"the robot's state is missing, {expected}")
        values = [state.joints] + ([state.pose.position, state.pose.quaternion] if state.pose else [])
        if not all(np.isfinite(value).all() for value in values):
            raise _Stop(StopReason.STATE_STALE, f"the robot's state is not finite, {expected} in numbers")
        age_s = (now_ns - state.stamp_ns) / NS_PER_S
        if abs(age_s) > self._contract.watchdog.state_max_age_s:
            raise _Stop(StopReason.STATE_STALE, f"the robot's state is {age_s:.2f} s old, expected at most "
                        f"{self._contract.watchdog.state_max_age_s:g} s")
        beyond = outside(self._contract, state)
        if beyond is not None:
            raise _Stop(StopReason.OUT_OF_BOUNDS, beyond)
        return state

    def _row(self, now_ns: int) -> ScheduledRow:
        scheduled = self._schedule.row_at(now_ns)
        if scheduled is not None:
            return scheduled
        newest = self._schedule.newest
        age_s = (now_ns - newest.stamp_ns) / NS_PER_S
        span_s = len(newest.values) * newest.dt_ns / NS_PER_S
        raise _Stop(StopReason.CHUNK_STALE, f"the newest chunk's observation is {age_s:.2f} s old, "
                    f"its rows reach {span_s:.2f} s; is the policy too slow?")

    def _request(self, now_ns: int, scheduled: ScheduledRow) -> Command:
        """What the policy asks for now, in command units and without limits."""
        if self._gripper is None:
            return Command(now_ns, self._arm.request(scheduled.values), None)
        return Command(now_ns, self._arm.request(scheduled.values[:-1]), float(scheduled.values[-1]))

    def _limit(self, now_ns: int, raw: Command, state: Observation) -> Command:
        elapsed_s = self._elapsed_s(now_ns)
        age_s = max(now_ns - state.stamp_ns, 0) / NS_PER_S
        arm = self._arm.limit(raw.arm, state, elapsed_s, age_s)
        gripper = self._gripper.limit(raw.gripper, elapsed_s) if self._gripper else None
        sent = Command(now_ns, arm, gripper)
        limited = tuple((np.abs(_values(raw) - _values(sent)) > _SAME).tolist())
        if any(limited):
            names = [name for name, one in zip(self._contract.command_names, limited, strict=True) if one]
            message = f"reduced to the limits: {', '.join(names)}"
            self._set(GuardState.LIMITING, StopReason.NONE, message, limited)
        else:
            self._set(GuardState.ACTIVE, StopReason.NONE, f"run {self._run_id} drives the robot")
        return sent

    def _hold(self, now_ns: int, state: Observation | None, raw: Command | None = None,
              scheduled: ScheduledRow | None = None) -> Decision:
        """The contract's stop behaviour. A robot that was never driven gets nothing unless it is stopped."""
        sent = None
        if self._run_id or self.status.state is GuardState.STOPPED:
            # A state with NaN in it must not become the pose to hold.
            whole = state is not None and all(np.isfinite(value).all() for value in _state_values(state))
            arm = self._arm.hold(state if whole else None)
            sent = None if arm is None else Command(now_ns, arm, self._gripper_hold(now_ns))
        self._sent_ns = now_ns
        origin = (scheduled.stamp_ns, scheduled.row) if scheduled else (0, 0)
        return Decision(raw, sent, self.status, 0, *origin)

    def _gripper_hold(self, now_ns: int) -> float | None:
        if self._gripper is None:
            return None
        if self._contract.stop.gripper == "open" and self.status.state is GuardState.STOPPED:
            return self._gripper.limit(1.0, self._elapsed_s(now_ns))
        return self._gripper.hold()

    def _elapsed_s(self, now_ns: int) -> float:
        """Time since the last command: a control period at first and at most: a late tick gains no speed."""
        if self._sent_ns is None:
            self._sent_ns = now_ns - self._contract.control_dt_ns
        elapsed_ns = min(max(now_ns - self._sent_ns, 0), self._contract.control_dt_ns)
        self._sent_ns = now_ns
        return elapsed_ns / NS_PER_S

    def _set(self, state: GuardState, reason: StopReason, message: str,
             limited: tuple[bool, ...] = ()) -> None:
        self.status = SafetyState(state, reason, message, limited or self._unlimited, self._run_id)


def _mistake(contract: RobotContract, chunk: ActionChunk) -> str | None:
    """What is wrong with a chunk, in words; None when nothing is."""
    columns = len(contract.action_names)
    if chunk.run_id < 1:
        return f"got run_id {chunk.run_id}, expected at least 1"
    if chunk.values.ndim != 2 or len(chunk.values) < 1 or chunk.values.shape[1] != columns:
        return (f"got values of shape {chunk.values.shape}, expected (rows, {columns}) for "
                f"{', '.join(contract.action_names)}")
    bad = np.argwhere(~np.isfinite(chunk.values))
    if len(bad):
        row, column = bad[0]
        return (f"got {chunk.values[row, column]} in row {row}, column {contract.action_names[column]}, "
                "expected a number")
    if chunk.dt_ns != contract.action_dt_ns:
        return (f"got dt {chunk.dt_ns} ns, expected {contract.action_dt_ns} ns (action.rate_hz "
                f"{contract.action.rate_hz:g})")
    if not 1 <= chunk.execute_rows <= len(chunk.values):
        return f"got execute_rows {chunk.execute_rows}, expected 1 .. {len(chunk.values)}, the rows it has"
    return None


def _values(command: Command) -> np.ndarray:
    return command.arm if command.gripper is None else np.append(command.arm, command.gripper)


def _state_values(state: Observation) -> list[np.ndarray]:
    return [state.joints] + ([state.pose.position, state.pose.quaternion] if state.pose else [])

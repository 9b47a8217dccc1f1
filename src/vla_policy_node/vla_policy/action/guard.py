"""Chunks, the robot's state and two clocks in; for each instant one limited command out, or a latched stop.

The last word before the robot, for the policy and for an operator who takes over from it. Pure and deterministic: the
guard node and in-process rollouts run this class.
"now" is ROS time (it may be simulated, stop or jump), "steady" is a clock that only moves forward.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_policy.action.arbiter import Arbiter, Driver
from vla_policy.action.checks import chunk_mistake, expected_state, is_complete, is_finite, state_fault
from vla_policy.action.limits import GripperLimiter, arm_limiter, outside
from vla_policy.action.safety import Decision, GuardState, SafetyState, StopReason
from vla_policy.action.schedule import Blend, ChunkSchedule, ScheduledRow
from vla_policy.contract import RobotContract
from vla_policy.types import NS_PER_S, ActionChunk, Command, Observation

FIRST_STATE_S = 5.0  # how long a run waits for a robot that was never heard before it is a fault
_OPERATOR_HOLDS = "the operator has control, the robot holds"
_SAME = 1e-9  # values closer than this (m/s, rad/s, m, rad, fraction) differ by rounding only


class _Stop(Exception):
    """Ends a check with the reason to stop."""

    def __init__(self, reason: StopReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Guard:
    """Arbitration, schedule, limits and watchdog of one robot.

    silence_s: overrides the contract's; `math.inf` lifts it, for a simulator that waits for its policy.
    """

    def __init__(self, contract: RobotContract, *, blend: Blend = Blend.LATEST,
                 silence_s: float | None = None) -> None:
        self._contract = contract
        self._silence_s = contract.watchdog.silence_s if silence_s is None else silence_s
        self._arbiter = Arbiter()
        self._schedule = ChunkSchedule(contract, blend)
        self._arm = arm_limiter(contract)
        gripper = contract.action.gripper
        self._gripper = GripperLimiter(gripper.max_speed_per_s) if gripper else None
        self._unlimited = (False,) * len(contract.command_names)
        self._run_id = 0  # of the run that is active or was last
        self._running = False
        self._driver = Driver.POLICY  # of that run
        self._suspended_run_id = 0  # the policy's run that an operator took over from, 0: none
        self._over: set[int] = set()  # runs that ended, were stopped, or came while stopped
        self._estop_pressed = False
        self._chunk_steady_ns = 0  # when the newest chunk came
        self._begun_steady_ns = 0  # when the run began
        self._state_heard = False  # before the first one a state is absent, afterwards it is stale
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
    def overruled_chunks(self) -> int:
        """The policy's chunks that came while an operator had control, or from observations before the hand-back."""
        return self._arbiter.overruled

    @property
    def operator_has_control(self) -> bool:
        """Whether an operator has taken over, be it that the arm moves or holds."""
        return self._arbiter.operator_has_control

    @property
    def run_id(self) -> int:
        """The run that is active or was last; 0 before the first."""
        return self._run_id

    def accept(self, chunk: ActionChunk, steady_ns: int, driver: Driver = Driver.POLICY) -> bool:
        """Take a chunk; False: it changes nothing. One of a new run starts that run, an operator's takes over.

        An invalid one stops the robot. Ignored, and counted: chunks while stopped, and of a run that ended or was
        stopped. Overruled, and counted: the policy's while an operator has control; its run waits for the hand-back.
        """
        if self.status.state is GuardState.STOPPED:
            self._over.add(chunk.run_id)  # else a reset would let this run set the robot in motion
            self.status = replace(self.status, run_id=chunk.run_id)
        if chunk.run_id in self._over:
            self._ignored_chunks += 1
            return False
        if not self._arbiter.hears(driver, chunk.stamp_ns):
            return False
        mistake = chunk_mistake(self._contract, chunk)
        if mistake is not None:
            self.refuse(chunk.run_id, mistake, driver)
            return True
        if driver is Driver.OPERATOR:
            self._suspend_policy()
        if chunk.run_id != self._run_id or not self._running:
            self._begin(chunk.run_id, driver, steady_ns)
        if self._schedule.add(chunk):
            self._chunk_steady_ns = steady_ns
        return True

    def refuse(self, run_id: int, mistake: str, driver: Driver = Driver.POLICY) -> None:
        """Stop because of a chunk that cannot be used; its run is over. A policy that is overruled stops nothing."""
        if driver is Driver.POLICY and self._arbiter.operator_has_control:
            return
        self._over.add(run_id)
        self.stop(StopReason.CHUNK_INVALID, f"chunk of {_name(driver, run_id)} refused: {mistake}", run_id)

    def end_run(self, run_id: int, steady_ns: int) -> None:
        """A run is over: the robot holds. An operator keeps control. Ignored for any but the active or waiting run."""
        if run_id == self._suspended_run_id:
            self._end_suspended()
        if self._running and run_id == self._run_id:
            self._end()
            self._set_idle(_OPERATOR_HOLDS if self.operator_has_control else f"run {run_id} ended, the robot holds")

    def take_over(self) -> None:
        """The operator has control: a policy's run waits, the robot holds until the operator's chunks come."""
        if not self._arbiter.operator_has_control:
            self._suspend_policy()
            self._set_idle(_OPERATOR_HOLDS)

    def hand_back(self, now_ns: int) -> None:
        """The policy has control again: the robot holds until chunks come that are computed from later observations."""
        if not self._arbiter.operator_has_control:
            return
        if self._running:
            self._end()
        self._arbiter.hand_back(now_ns)
        waiting = f"run {self._suspended_run_id} goes on" if self._suspended_run_id else "a run begins"
        self._set_idle(f"the operator handed back, the robot holds until {waiting}")

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
            if self._awaits_robot(state, steady_ns):
                return Decision(None, None, self.status)
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
            self._end_suspended()
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
        awaited = "the operator" if self._arbiter.operator_has_control else "a new run"
        self._set(GuardState.IDLE, StopReason.NONE, f"reset after {was.name}; waiting for {awaited}")
        return True, self.status.message

    def _end(self) -> None:
        if self._running:
            self._over.add(self._run_id)
        self._running = False
        self._schedule.clear()

    def _suspend_policy(self) -> None:
        if not self._arbiter.operator_has_control and self._running:
            self._suspended_run_id, self._running = self._run_id, False
            self._schedule.clear()
        self._arbiter.take_over()

    def _end_suspended(self) -> None:
        if self._suspended_run_id:
            self._over.add(self._suspended_run_id)
            self._suspended_run_id = 0

    def _begin(self, run_id: int, driver: Driver, steady_ns: int) -> None:
        self._end()
        goes_on = run_id == self._suspended_run_id
        if driver is Driver.POLICY and not goes_on:
            self._end_suspended()
        elif goes_on:
            self._suspended_run_id = 0
        self._run_id, self._driver, self._running = run_id, driver, True
        self._begun_steady_ns = steady_ns
        self._clocks_ns = None
        self._sent_ns = None
        self._arm.begin()
        if self._gripper and driver is Driver.POLICY and not goes_on:
            self._gripper.begin()  # from hand to hand the gripper stays where it was sent
        self._set(GuardState.ACTIVE, StopReason.NONE, self._drives())

    def _drives(self) -> str:
        return f"{_name(self._driver, self._run_id)} drives the robot"

    def _awaits_robot(self, state: Observation | None, steady_ns: int) -> bool:
        """Whether the robot was never heard. Nothing is sent then; STATE_STALE comes once it is silent for too long."""
        self._state_heard = self._state_heard or is_complete(self._contract, state)
        if self._state_heard or (steady_ns - self._begun_steady_ns) / NS_PER_S > FIRST_STATE_S:
            return False
        expected = expected_state(self._contract)
        self._set_idle(f"{_name(self._driver, self._run_id)} waits for the robot's first {expected}")
        return True

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
                        f"{self._silence_s:g} s; is {self._sender()} alive?")

    def _checked_state(self, now_ns: int, state: Observation | None) -> Observation:
        """The state if it is whole, fresh and within bounds. Raises _Stop."""
        fault = state_fault(self._contract, state, now_ns)
        if fault is not None:
            raise _Stop(StopReason.STATE_STALE, fault)
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
                    f"its rows reach {span_s:.2f} s; is {self._sender()} dead or too slow?")

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
            self._set(GuardState.ACTIVE, StopReason.NONE, self._drives())
        return sent

    def _hold(self, now_ns: int, state: Observation | None, raw: Command | None = None,
              scheduled: ScheduledRow | None = None) -> Decision:
        """The contract's stop behaviour. A robot that was never driven gets nothing unless it is stopped."""
        sent = None
        if self._run_id or self.status.state is GuardState.STOPPED:
            # A state with NaN in it must not become the pose to hold.
            arm = self._arm.hold(state if state is not None and is_finite(state) else None)
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

    def _sender(self) -> str:
        return "the teleoperation" if self._driver is Driver.OPERATOR else "the policy"

    def _set_idle(self, message: str) -> None:
        """IDLE, unless a stop is latched."""
        if self.status.state is not GuardState.STOPPED:
            self._set(GuardState.IDLE, StopReason.NONE, message)

    def _set(self, state: GuardState, reason: StopReason, message: str,
             limited: tuple[bool, ...] = ()) -> None:
        self.status = SafetyState(state, reason, message, limited or self._unlimited, self._run_id)


def _name(driver: Driver, run_id: int) -> str:
    return "the operator" if driver is Driver.OPERATOR else f"run {run_id}"


def _values(command: Command) -> np.ndarray:
    return command.arm if command.gripper is None else np.append(command.arm, command.gripper)

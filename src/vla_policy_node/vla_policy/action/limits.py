"""What a policy asks for in, what a robot may do out: speed, acceleration, workspace, joints, gripper.

One limiter per action kind; each remembers what it sent, so accelerations are those of the commands sent.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import quaternion_from_rotvec, rotate, rotation_between
from vla_policy.contract import ActionKind, RobotContract, Workspace
from vla_policy.types import NS_PER_S, Observation

Vector = NDArray[np.float64]

# A tool or joint this far beyond its limits means that something else moved it or that the contract is wrong.
BOUNDS_MARGIN_M = 0.05
BOUNDS_MARGIN_RAD = 0.05


class ArmLimiter(Protocol):
    """Arm values are those of `Command.arm` for the contract's action kind."""

    def request(self, row: Vector) -> Vector:
        """Arm columns of a chunk's row -> the arm values it asks for."""

    def begin(self) -> None:
        """A run begins: forget what was sent."""

    def jump(self, request: Vector, state: Observation) -> str | None:
        """One sentence when `request` is so far off that it must be a fault."""

    def limit(self, request: Vector, state: Observation, elapsed_s: float, age_s: float) -> Vector:
        """The nearest arm values within the limits, and remember them as sent.

        elapsed_s: time since the last command, at most one control period. age_s: how old `state` is.
        """

    def hold(self, state: Observation | None) -> Vector | None:
        """The arm values of the contract's stop behaviour, None: send nothing. Only `begin` leads on from a hold."""


def arm_limiter(contract: RobotContract) -> ArmLimiter:
    """The limiter for a contract's action kind."""
    kinds = {ActionKind.EE_DELTA: TwistLimiter, ActionKind.EE_POSE: PoseLimiter,
             ActionKind.JOINT_POSITION: JointLimiter}
    return kinds[contract.action.kind](contract)


class TwistLimiter:
    """ee_delta: rows of displacements become twists (6,), m/s and rad/s in the base frame."""

    def __init__(self, contract: RobotContract) -> None:
        self._limits = contract.limits
        self._row_s = contract.action_dt_ns / NS_PER_S
        self._period_s = contract.control_dt_ns / NS_PER_S
        self._low, self._high = _box(contract.limits.workspace)
        self._silent = contract.stop.behaviour == "silence"
        self._sent = np.zeros(6)

    def request(self, row: Vector) -> Vector:
        """Displacements (6,) of one action period [m, rad] -> the twist (6,) that covers them [m/s, rad/s]."""
        return row / self._row_s

    def begin(self) -> None:
        """A run begins from rest: the twist sent last counts as zero."""
        self._sent = np.zeros(6)

    def jump(self, request: Vector, state: Observation) -> str | None:
        """One sentence when the linear or angular velocity is longer than `jump_factor` times its limit."""
        limits, factor = self._limits, self._limits.jump_factor
        return (_too_far(request[:3], limits.linear_velocity_m_s * factor, "linear velocity", "m/s")
                or _too_far(request[3:], limits.angular_velocity_rad_s * factor, "angular velocity", "rad/s"))

    def limit(self, request: Vector, state: Observation, elapsed_s: float, age_s: float) -> Vector:
        """The twist (6,), shortened in length rather than per axis, slowed towards the walls of the workspace."""
        limits = self._limits
        linear = shorten(request[:3], limits.linear_velocity_m_s)
        linear = _step(self._sent[:3], linear, limits.linear_acceleration_m_s2 * elapsed_s)
        angular = shorten(request[3:], limits.angular_velocity_rad_s)
        angular = _step(self._sent[3:], angular, limits.angular_acceleration_rad_s2 * elapsed_s)
        self._sent = np.concatenate([self._inside(linear, state, age_s), angular])
        return self._sent.copy()

    def _inside(self, linear: Vector, state: Observation, age_s: float) -> Vector:
        """Per axis never so fast outward that the next period, or braking, ends outside. Inward is free."""
        horizon_s = age_s + self._period_s
        outward = []
        for room in (self._high - state.pose.position, state.pose.position - self._low):
            room = np.maximum(room, 0.0)
            brake = _brake_speed(room, self._limits.linear_acceleration_m_s2, self._period_s)
            outward.append(np.minimum(room / horizon_s, brake))
        return np.clip(linear, -outward[1], outward[0])

    def hold(self, state: Observation | None) -> Vector | None:
        """The zero twist (6,), or None for a silent stop; the state plays no part."""
        return None if self._silent else np.zeros(6)


class _PositionLimiter:
    """What the pose and joint limiters share: a command leads on from the last, the first from where the robot is."""

    def __init__(self, contract: RobotContract) -> None:
        self._silent = contract.stop.behaviour == "silence"
        self._sent: Vector | None = None

    def hold(self, state: Observation | None) -> Vector | None:
        """The arm values sent last, else those where the robot stands; None for a silent stop or without both."""
        if self._silent or (self._sent is None and state is None):
            return None
        self._sent = self._start(state)
        return self._sent.copy()

    def _start(self, state: Observation) -> Vector:
        """What was sent last; at first where the robot is."""
        return self._sent if self._sent is not None else self._present(state)

    def _present(self, state: Observation) -> Vector:
        """The arm values that say: stay where you are."""
        raise NotImplementedError


class PoseLimiter(_PositionLimiter):
    """ee_pose: rows of positions and rotation vectors become poses (7,), m and xyzw in the base frame."""

    def __init__(self, contract: RobotContract) -> None:
        super().__init__(contract)
        self._limits = contract.limits
        self._jump_s = max(contract.action_dt_ns, contract.control_dt_ns) / NS_PER_S
        self._low, self._high = _box(contract.limits.workspace)
        self.begin()

    def request(self, row: Vector) -> Vector:
        """Position [m] and rotation vector [rad] of a row (6,) -> pose (7,): position, quaternion xyzw."""
        return np.concatenate([row[:3], quaternion_from_rotvec(row[3:6])])

    def begin(self) -> None:
        """A run begins from rest, where the robot will then stand: the pose sent last is forgotten."""
        self._sent = None
        self._linear = np.zeros(3)
        self._angular = np.zeros(3)

    def jump(self, request: Vector, state: Observation) -> str | None:
        """One sentence when `request` is further off than `jump_factor` times the speed limits go in a period."""
        limits, start = self._limits, self._start(state)
        reach_s = limits.jump_factor * self._jump_s
        turn = rotation_between(start[3:], request[3:])
        return (_too_far(request[:3] - start[:3], limits.linear_velocity_m_s * reach_s, "step", "m")
                or _too_far(turn, limits.angular_velocity_rad_s * reach_s, "turn", "rad"))

    def limit(self, request: Vector, state: Observation, elapsed_s: float, age_s: float) -> Vector:
        """The next pose (7,) on the way to `request` and into the workspace, without overshooting it."""
        limits, start = self._limits, self._start(state)
        if elapsed_s > 0:
            target = np.clip(request[:3], self._low, self._high)
            self._linear = _approach(target - start[:3], self._linear, limits.linear_velocity_m_s,
                                     limits.linear_acceleration_m_s2, elapsed_s)
            turn = rotation_between(start[3:], request[3:])
            self._angular = _approach(turn, self._angular, limits.angular_velocity_rad_s,
                                      limits.angular_acceleration_rad_s2, elapsed_s)
        position = start[:3] + self._linear * elapsed_s
        # From outside the box the way back takes as long as the speed limit says; it never leads further out.
        position = np.clip(position, np.minimum(start[:3], self._low), np.maximum(start[:3], self._high))
        if elapsed_s > 0:
            self._linear = (position - start[:3]) / elapsed_s
        quaternion = rotate(start[3:], self._angular * elapsed_s)
        if quaternion @ request[3:] < 0:
            quaternion = -quaternion
        self._sent = np.concatenate([position, quaternion])
        return self._sent.copy()

    def _present(self, state: Observation) -> Vector:
        return np.concatenate([state.pose.position, state.pose.quaternion])


class JointLimiter(_PositionLimiter):
    """joint_position: rows are joint targets (J,), rad or m, in the order of `action.joints`."""

    def __init__(self, contract: RobotContract) -> None:
        super().__init__(contract)
        limits = contract.limits
        self._index = [contract.joints.names.index(name) for name in contract.action.joints]
        self._names = contract.action.joints
        self._low, self._high = np.array(limits.joint_position, dtype=np.float64).T
        self._velocity = np.array(limits.joint_velocity, dtype=np.float64)
        self._acceleration = np.array(limits.joint_acceleration, dtype=np.float64)
        jump_s = max(contract.action_dt_ns, contract.control_dt_ns) / NS_PER_S
        self._reach = self._velocity * limits.jump_factor * jump_s
        self.begin()

    def request(self, row: Vector) -> Vector:
        """The targets (J,) as they are, in a copy."""
        return row.copy()

    def begin(self) -> None:
        """A run begins from rest, where the joints will then stand: the targets sent last are forgotten."""
        self._sent = None
        self._speed = np.zeros(len(self._index))

    def jump(self, request: Vector, state: Observation) -> str | None:
        """One sentence on the joint that is furthest beyond `jump_factor` times its speed limit over a period."""
        distance = np.abs(request - self._start(state))
        worst = int(np.argmax(distance / self._reach))
        if distance[worst] <= self._reach[worst]:
            return None
        return (f"step of {self._names[worst]}: got {distance[worst]:.3g} rad, expected at most "
                f"{self._reach[worst]:.3g} rad")

    def limit(self, request: Vector, state: Observation, elapsed_s: float, age_s: float) -> Vector:
        """The next targets (J,), each joint within its own range, speed and acceleration, braking before its goal."""
        start = self._start(state)
        if elapsed_s > 0:
            way = np.clip(request, self._low, self._high) - start
            distance = np.abs(way)
            speed = np.minimum(_brake_speed(distance, self._acceleration, elapsed_s), self._velocity)
            wanted = np.sign(way) * speed
            change = self._acceleration * elapsed_s
            self._speed = np.clip(wanted, self._speed - change, self._speed + change)
        position = start + self._speed * elapsed_s
        self._sent = np.clip(position, np.minimum(start, self._low), np.maximum(start, self._high))
        if elapsed_s > 0:
            self._speed = (self._sent - start) / elapsed_s
        return self._sent.copy()

    def _present(self, state: Observation) -> Vector:
        return state.joints[self._index].astype(np.float64)


class GripperLimiter:
    """Gripper openings in, openings in 0 .. 1 that change no faster than the contract allows out."""

    def __init__(self, max_speed_per_s: float) -> None:
        self._max_speed_per_s = max_speed_per_s
        self._sent: float | None = None

    def begin(self) -> None:
        """A run begins: its first opening is free, as no contract says where the gripper is."""
        self._sent = None

    def limit(self, opening: float, elapsed_s: float) -> float:
        """The nearest opening allowed, and remember it as sent."""
        opening = min(max(opening, 0.0), 1.0)
        if self._sent is not None:
            step = self._max_speed_per_s * elapsed_s
            opening = min(max(opening, self._sent - step), self._sent + step)
        self._sent = opening
        return opening

    def hold(self) -> float | None:
        """The opening that was sent last, None before the first."""
        return self._sent


def outside(contract: RobotContract, state: Observation) -> str | None:
    """One sentence when the robot stands beyond its workspace or joint range by more than the margin."""
    limits = contract.limits
    if limits.workspace is not None and state.pose is not None:
        low, high = _box(limits.workspace)
        beyond = np.maximum(low - state.pose.position, state.pose.position - high)
        axis = int(np.argmax(beyond))
        if beyond[axis] > BOUNDS_MARGIN_M:
            return (f"the tool stands at {'xyz'[axis]} = {state.pose.position[axis]:.3f} m, "
                    f"expected {low[axis]:.3f} .. {high[axis]:.3f} m "
                    f"(margin {BOUNDS_MARGIN_M} m); jog it back by hand")
    for name, (low, high) in zip(contract.action.joints, limits.joint_position, strict=False):
        angle = state.joints[contract.joints.names.index(name)]
        if max(low - angle, angle - high) > BOUNDS_MARGIN_RAD:
            return (f"joint {name} stands at {angle:.3f} rad, expected {low:.3f} .. {high:.3f} rad "
                    f"(margin {BOUNDS_MARGIN_RAD} rad); jog it back by hand")
    return None


def _box(workspace: Workspace) -> tuple[Vector, Vector]:
    low, high = np.array([workspace.x, workspace.y, workspace.z], dtype=np.float64).T
    return low, high


def _too_far(vector: Vector, most: float, what: str, unit: str) -> str | None:
    length = float(np.linalg.norm(vector))
    return None if length <= most else f"{what}: got {length:.3g} {unit}, expected at most {most:.3g} {unit}"


def shorten(vector: Vector, most: float) -> Vector:
    """The vector itself, or one of the same direction and length `most`."""
    length = float(np.linalg.norm(vector))
    return vector if length <= most else vector * (most / length)


def _step(start: Vector, end: Vector, most: float) -> Vector:
    """`end`, or the point on the way to it that is `most` away from `start`."""
    change = end - start
    return end if float(np.linalg.norm(change)) <= most else start + shorten(change, most)


def _brake_speed(distance: Vector | float, acceleration: Vector | float, period_s: float) -> Vector | float:
    """The highest speed now from which slowing down by s = acceleration * period in each later period ends in time.

    k periods of v, v - s, … cover T·(k·v - s·k·(k-1)/2); k is the smallest number for which v <= k·s. For k = 1 the
    target is reached within this period.
    """
    step = acceleration * period_s
    periods = np.maximum(np.ceil((np.sqrt(1 + 8 * distance / (step * period_s)) - 1) / 2), 1)
    return distance / (periods * period_s) + step * (periods - 1) / 2


def _approach(way: Vector, velocity: Vector, fastest: float, acceleration: float, period_s: float) -> Vector:
    """The next velocity (3,) towards a target `way` ahead, without overshooting it."""
    distance = float(np.linalg.norm(way))
    speed = min(fastest, float(_brake_speed(distance, acceleration, period_s)))
    wanted = way * (speed / distance) if distance > 0 else np.zeros(3)
    return _step(velocity, wanted, acceleration * period_s)

"""In: nothing. Out: a contract of each action kind in round numbers, and short makers of chunks, states and guards."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_policy.action.guard import Guard
from vla_policy.action.safety import Decision, GuardState, StopReason
from vla_policy.contract import RobotContract, parse_contract
from vla_policy.types import ActionChunk, Observation, Pose

DT_NS = 50_000_000  # rows and commands of every contract here: 20 Hz
T0 = 1_000 * DT_NS  # when runs begin
CENTRE = (0.5, 0.0, 0.3)  # of the workspace [m]
UPRIGHT = (0.0, 0.0, 0.0, 1.0)

_COMMON: dict[str, Any] = {
    "name": "test", "base_frame": "base", "tool_frame": "tcp", "control_rate_hz": 20, "cameras": {},
    "joints": {"topic": "/joints", "names": ["a", "b", "finger"], "max_age_s": 0.2},
    "watchdog": {"silence_s": 0.5, "state_max_age_s": 0.3},
}
_CARTESIAN_LIMITS = {
    "linear_velocity_m_s": 0.4, "linear_acceleration_m_s2": 4.0,
    "angular_velocity_rad_s": 1.0, "angular_acceleration_rad_s2": 10.0,
    "workspace": {"x": [0.2, 0.8], "y": [-0.4, 0.4], "z": [0.0, 0.6]}, "jump_factor": 4.0,
}
_GRIPPER = {"topic": "/gripper", "type": "vla_msgs/msg/GripperCommand", "max_speed_per_s": 4.0}


def twist_contract(**changes: Any) -> RobotContract:
    """ee_delta with a gripper; 0.4 m/s, 4 m/s2, box 0.2..0.8, -0.4..0.4, 0..0.6 m."""
    return _contract("ee_delta", "geometry_msgs/msg/TwistStamped", "zero_velocity", _CARTESIAN_LIMITS, changes)


def pose_contract(**changes: Any) -> RobotContract:
    """ee_pose with the limits of `twist_contract`."""
    return _contract("ee_pose", "geometry_msgs/msg/PoseStamped", "hold_position", _CARTESIAN_LIMITS, changes)


def joint_contract(**changes: Any) -> RobotContract:
    """joint_position of two joints: +-1 rad, 2 rad/s, 20 rad/s2."""
    limits = {"joint_position": [[-1.0, 1.0]] * 2, "joint_velocity": [2.0] * 2, "joint_acceleration": [20.0] * 2,
              "jump_factor": 4.0}
    return _contract("joint_position", "std_msgs/msg/Float64MultiArray", "hold_position", limits, changes)


def _contract(kind: str, message: str, stop: str, limits: dict[str, Any], changes: dict[str, Any]) -> RobotContract:
    data = {**_COMMON, "limits": limits, "stop": {"behaviour": stop},
            "action": {"kind": kind, "rate_hz": 20, "command": {"topic": "/arm", "type": message}, "gripper": _GRIPPER}}
    if kind == "joint_position":
        data["action"]["joints"] = ["a", "b"]
    else:
        data["pose"] = {"topic": "/pose", "max_age_s": 0.2}
    return parse_contract({**data, **changes}, "test contract")


def state(stamp_ns: int, position: Any = CENTRE, quaternion: Any = UPRIGHT,
          joints: Any = (0.0, 0.0, 0.04)) -> Observation:
    """A robot at rest in the middle of its workspace, or as told."""
    return Observation(stamp_ns, {}, np.array(joints, dtype=np.float64),
                       Pose(np.array(position, dtype=np.float64), np.array(quaternion, dtype=np.float64)))


def chunk(stamp_ns: int, rows: Any, run_id: int = 1, execute_rows: int = 2, dt_ns: int = DT_NS) -> ActionChunk:
    """A chunk of the given rows."""
    return ActionChunk(stamp_ns, dt_ns, np.array(rows, dtype=np.float64), execute_rows, run_id)


def twist_rows(count: int, x_m_s: float = 0.0, y_m_s: float = 0.0, gripper: float = 1.0) -> np.ndarray:
    """Rows (count, 7) that ask for a constant velocity."""
    row = np.array([x_m_s, y_m_s, 0.0, 0.0, 0.0, 0.0, 0.0]) * (DT_NS / 1e9)
    row[-1] = gripper
    return np.tile(row, (count, 1))


def running(contract: RobotContract | None = None, rows: int = 8, **settings: object) -> Guard:
    """A guard that took one chunk of 0.1 m/s, stamped T0, and sent its first command."""
    guard = Guard(contract or twist_contract(), **settings)
    guard.accept(chunk(T0, twist_rows(rows, 0.1)), T0)
    assert tick(guard, 0).status.state is GuardState.ACTIVE
    return guard


def tick(guard: Guard, k: int, robot: Observation | None = None) -> Decision:
    """The command for k periods after T0, with both clocks in step and a fresh state."""
    now_ns = T0 + k * DT_NS
    return guard.command(now_ns, robot or state(now_ns), now_ns)


def assert_stopped(guard: Guard, reason: StopReason, *words: str) -> None:
    """The stop is latched with this reason, and its message holds all the words."""
    assert (guard.status.state, guard.status.reason) == (GuardState.STOPPED, reason)
    for word in words:
        assert word in guard.status.message

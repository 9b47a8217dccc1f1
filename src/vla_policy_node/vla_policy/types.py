"""What flows through the stack: Observation in, ActionChunk out, Command to the robot.

Stamps are integer nanoseconds of ROS time. Frames are those of the contract. Quaternions are (x, y, z, w).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NS_PER_S = 1_000_000_000


def seconds_to_ns(seconds: float) -> int:
    """Seconds to the nearest nanosecond."""
    return round(seconds * NS_PER_S)


@dataclass(frozen=True, slots=True)
class Pose:
    """A pose of the tool centre point in the contract's base frame.

    position: float64 (3,), m. quaternion: float64 (4,), xyzw, unit length.
    """

    position: NDArray[np.float64]
    quaternion: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a robot reports for one instant.

    stamp_ns: the instant.
    images: camera name -> uint8 (H, W, 3), RGB, as the contract sizes it. May be empty where no policy looks.
    joints: float64 (J,), rad or m, in the contract's joint order.
    pose: of the tool centre point, or None where the contract has none.
    """

    stamp_ns: int
    images: Mapping[str, NDArray[np.uint8]]
    joints: NDArray[np.float64]
    pose: Pose | None


@dataclass(frozen=True, slots=True)
class ActionChunk:
    """Future actions computed from one observation; row k is meant for stamp_ns + k * dt_ns.

    values: float64 (K, A) in contract units, columns as `RobotContract.action.names`.
    execute_rows: rows after which a newer chunk is meant to have come.
    run_id: the run it belongs to, >= 1.
    """

    stamp_ns: int
    dt_ns: int
    values: NDArray[np.float64]
    execute_rows: int
    run_id: int


@dataclass(frozen=True, slots=True)
class InFlight:
    """What a robot goes on with while a new chunk is computed.

    values: float64 (R, A), R >= 1, the rows left of the chunk before, contract units; row k is for the stamp of the new
    observation + k * dt.
    frozen: how many of them will have been executed when the new chunk arrives, 1 .. R.
    """

    values: NDArray[np.float64]
    frozen: int


@dataclass(frozen=True, slots=True)
class Command:
    """What is sent to a robot for one instant.

    arm: float64, by the contract's action kind:
        ee_delta -> (6,) twist in the base frame, m/s and rad/s;
        ee_pose -> (7,) position m and quaternion xyzw in the base frame;
        joint_position -> (J,) rad or m, in the order of `action.joints`.
    gripper: 0 closed .. 1 open, or None where the contract has no gripper.
    """

    stamp_ns: int
    arm: NDArray[np.float64]
    gripper: float | None

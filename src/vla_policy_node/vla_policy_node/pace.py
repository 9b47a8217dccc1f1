"""The two paces of a simulation and the QoS profiles that all nodes share."""

from __future__ import annotations

from enum import StrEnum

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

RELIABLE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
# Of commands and statuses an evaluation needs every one, also if it is slow or was discovered late.
RECORDED = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1000, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)
LATCHED = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL)
LATEST_ONLY = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Pace(StrEnum):
    """realtime: time passes by itself, as on a robot. lockstep: simulated time waits for each command."""

    REALTIME = "realtime"
    LOCKSTEP = "lockstep"

    @property
    def sensor_qos(self) -> QoSProfile:
        """For cameras and states: a robot wants the newest only; in lockstep a lost frame would halt time."""
        return RELIABLE if self is Pace.LOCKSTEP else LATEST_ONLY

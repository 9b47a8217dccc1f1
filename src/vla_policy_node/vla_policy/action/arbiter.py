"""Take-overs, hand-backs and two drivers' chunks in; whose chunks are heard out: the operator before the policy."""

from __future__ import annotations

from enum import StrEnum


class Driver(StrEnum):
    """Who sends action chunks."""

    POLICY = "policy"
    OPERATOR = "operator"


class Arbiter:
    """Who has control. The policy has it until an operator takes over, and again once the operator hands back.

    `overruled` counts the policy's chunks that were put aside.
    """

    def __init__(self) -> None:
        self._operator_has_control = False
        self._handed_back_ns: int | None = None  # the policy must have seen what the operator left behind
        self.overruled = 0

    @property
    def operator_has_control(self) -> bool:
        """Whether an operator has taken over, be it that the arm moves or holds."""
        return self._operator_has_control

    def take_over(self) -> None:
        """The operator has control from now on."""
        self._operator_has_control = True

    def hand_back(self, now_ns: int) -> None:
        """The policy has control again, with what it computes from observations later than `now_ns` (ROS time)."""
        self._operator_has_control = False
        self._handed_back_ns = now_ns

    def hears(self, driver: Driver, observation_ns: int) -> bool:
        """Whether a chunk of `driver`, computed from an observation of that stamp, counts now."""
        if driver is Driver.OPERATOR:
            return True
        outdated = self._handed_back_ns is not None and observation_ns <= self._handed_back_ns
        overruled = self._operator_has_control or outdated
        self.overruled += overruled
        return not overruled

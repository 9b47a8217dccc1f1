"""What the guard says in; whether a run is guarded, and if not why, out."""

from __future__ import annotations

import time
from collections.abc import Callable

from vla_msgs.msg import SafetyStatus

GUARD_SILENT_S = 5.0  # the guard repeats its status every second
GUARD_SETTLE_S = 1.0  # how long a run bears a guard that is absent or latched: the news of a reset may be on its way


class GuardWatch:
    """The newest status of the guard, and since when a run has none that lets it move. steady_s: a clock [s]."""

    def __init__(self, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._steady_s = steady_s
        self._status: SafetyStatus | None = None
        self._heard_s = 0.0
        self._fault_since: tuple[int, float] | None = None  # (run, steady time)

    def hear(self, status: SafetyStatus) -> None:
        """Take a message of /vla/safety."""
        self._status, self._heard_s = status, self._steady_s()

    def fault(self) -> str | None:
        """Why nothing may move now, in words; None where the guard lets it."""
        if self._status is None or self._steady_s() - self._heard_s > GUARD_SILENT_S:
            return "no guard speaks on /vla/safety; start guard_node before a run"
        if self._status.state == SafetyStatus.STOPPED:
            return f"the guard is latched: {self._status.message}; call /vla/safety/reset"
        return None

    def lasting_fault(self, run_id: int) -> str | None:
        """The fault, once run `run_id` has had one for GUARD_SETTLE_S. Ask regularly while a run is active."""
        fault = self.fault()
        if fault is None:
            self._fault_since = None
            return None
        if self._fault_since is None or self._fault_since[0] != run_id:
            self._fault_since = (run_id, self._steady_s())
        return fault if self._steady_s() - self._fault_since[1] >= GUARD_SETTLE_S else None

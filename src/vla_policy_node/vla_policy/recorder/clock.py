"""ROS time and a steady clock in, whether ROS time jumped out."""

from __future__ import annotations

from vla_policy.types import NS_PER_S

BACK_S = 0.1  # as far as stamps may fall behind and still be of one time
SIMULATED_SPEED = 20.0  # times real time: a recorder that was held up sees simulated time this far ahead, no more


class ClockWatch:
    """Compares ROS time with the steady clock from one call to the next.

    leap_s: what ROS time may gain at once. simulated: it may also stand, and run faster than the steady clock.
    """

    def __init__(self, leap_s: float, simulated: bool) -> None:
        self._leap_s = leap_s
        self._speed = SIMULATED_SPEED if simulated else 1.0
        self._newest: tuple[int, int] | None = None

    def jump(self, now_ns: int, steady_ns: int) -> str | None:
        """How time jumped since the last call, in words; None where it did not."""
        if self._newest is None:
            self._newest = (now_ns, steady_ns)
            return None
        gone_ns, passed_ns = now_ns - self._newest[0], steady_ns - self._newest[1]
        if gone_ns < -BACK_S * NS_PER_S:
            self._newest = None
            return f"time went back by {-gone_ns / NS_PER_S:.3f} s"
        leap_s = (gone_ns - self._speed * passed_ns) / NS_PER_S
        self._newest = (max(now_ns, self._newest[0]), steady_ns)
        if leap_s > self._leap_s:
            return f"time leapt forward by {gone_ns / NS_PER_S:.3f} s, expected at most {self._leap_s:g} s at once"
        return None

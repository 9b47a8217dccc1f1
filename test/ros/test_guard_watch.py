"""GuardWatch: no guard, a guard that fell silent, a latched guard, and the patience of a run with each."""

from __future__ import annotations

import pytest
from vla_msgs.msg import SafetyStatus

from vla_policy_node.guard_watch import GUARD_SETTLE_S, GUARD_SILENT_S, GuardWatch

LATCHED = SafetyStatus(state=SafetyStatus.STOPPED, message="emergency stop requested")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> GuardWatch:
    return GuardWatch(clock)


def test_a_guard_that_never_spoke(watch: GuardWatch) -> None:
    assert "no guard speaks on /vla/safety" in watch.fault()


@pytest.mark.parametrize("state", [SafetyStatus.IDLE, SafetyStatus.ACTIVE, SafetyStatus.LIMITING])
def test_a_guard_that_lets_a_run_move(watch: GuardWatch, clock: Clock, state: int) -> None:
    watch.hear(SafetyStatus(state=state))
    clock.now_s += GUARD_SILENT_S
    assert watch.fault() is None
    clock.now_s += 0.1
    assert "no guard speaks" in watch.fault()


def test_a_latched_guard_is_quoted_with_the_way_out(watch: GuardWatch) -> None:
    watch.hear(LATCHED)
    assert watch.fault() == "the guard is latched: emergency stop requested; call /vla/safety/reset"


def test_a_run_bears_a_fault_for_a_moment_only(watch: GuardWatch, clock: Clock) -> None:
    watch.hear(LATCHED)
    assert watch.lasting_fault(1) is None
    clock.now_s += GUARD_SETTLE_S
    assert "latched" in watch.lasting_fault(1)
    assert watch.lasting_fault(2) is None  # another run has its own patience


def test_the_news_of_a_reset_ends_the_patience(watch: GuardWatch, clock: Clock) -> None:
    watch.hear(LATCHED)
    assert watch.lasting_fault(1) is None
    watch.hear(SafetyStatus(state=SafetyStatus.IDLE))
    assert watch.lasting_fault(1) is None
    clock.now_s += GUARD_SETTLE_S
    watch.hear(LATCHED)
    assert watch.lasting_fault(1) is None

"""Rates, losses and silence of a stream; jumps of a clock."""

from __future__ import annotations

import pytest

from vla_policy.recorder.clock import ClockWatch
from vla_policy.recorder.meter import StreamMeter
from vla_policy.types import NS_PER_S

A, B = b"one publisher", b"another"


def meter_of(numbers: list[tuple[bytes, int]]) -> StreamMeter:
    meter = StreamMeter()
    for place, source in enumerate(numbers):
        meter.take(place * NS_PER_S, source, None)
    return meter


@pytest.mark.parametrize(("numbers", "lost"), [
    ([(A, 1), (A, 2), (A, 3)], 0),
    ([(A, 70), (A, 71)], 0),  # it spoke before anybody listened
    ([(A, 1), (A, 4), (A, 5), (A, 7)], 3),
    ([(A, 5), (B, 1), (A, 6), (B, 2)], 0),
    ([(A, 5), (B, 1), (A, 7), (B, 2)], 1),
    ([(A, 5), (A, 4), (A, 6)], 1),  # one came late: as lost for who reads in order
])
def test_numbers_tell_losses_exactly(numbers: list[tuple[bytes, int]], lost: int) -> None:
    assert meter_of(numbers).lost == lost


def lost_by_stamps(stamps_ms: list[float]) -> int:
    meter = StreamMeter()
    for stamp in stamps_ms:
        meter.take(0, None, round(stamp * 1e6))
    return meter.lost


def test_without_numbers_gaps_between_stamps_are_taken_for_losses() -> None:
    steady = [33.3 * number for number in range(60)]
    assert lost_by_stamps(steady) == 0
    assert lost_by_stamps([stamp + (number % 3) * 5 for number, stamp in enumerate(steady)]) == 0  # jitter
    assert lost_by_stamps(steady[:30] + steady[31:40] + steady[43:]) == 1 + 3
    assert lost_by_stamps(steady[:5] + steady[20:25]) == 0  # the period is not known yet


def test_a_rate_is_that_of_the_last_seconds() -> None:
    meter = StreamMeter()
    assert meter.rate_hz(0) is None and meter.silent_s(0) is None
    for number in range(40):
        meter.take(number * NS_PER_S // 10, None, None)
    for number in range(100):
        meter.take(4 * NS_PER_S + number * NS_PER_S // 50, None, None)
    assert meter.rate_hz(6 * NS_PER_S) == pytest.approx(50, rel=0.03)
    assert meter.silent_s(8 * NS_PER_S) == pytest.approx(2.02) and meter.rate_hz(9 * NS_PER_S) is None


def jump(simulated: bool, steps: list[tuple[float, float]]) -> str | None:
    """steps: (ROS time, steady time) [s]."""
    watch = ClockWatch(1.0, simulated)
    words = [watch.jump(round(now * NS_PER_S), round(steady * NS_PER_S)) for now, steady in steps]
    return next((text for text in words if text), None)


def test_time_that_goes_by_does_not_jump() -> None:
    assert jump(False, [(5, 0), (6, 1), (6.05, 1.05), (36.05, 31.05)]) is None  # a process that slept
    assert jump(False, [(5, 0), (4.95, 0.01)]) is None  # within the tolerance of stamps
    assert jump(True, [(5, 0), (5, 10), (5.05, 20), (8, 20.2)]) is None  # stands, then runs fast


def test_a_jump_is_told_in_seconds() -> None:
    assert jump(False, [(5, 0), (4.8, 0.1)]) == "time went back by 0.200 s"
    assert jump(False, [(5, 0), (4.95, 0.1), (4.87, 0.2)]) == "time went back by 0.130 s"  # bit by bit
    assert jump(False, [(5, 0), (7, 0.1)]) == "time leapt forward by 2.000 s, expected at most 1 s at once"
    assert jump(True, [(5, 0), (9, 0.1)]) == "time leapt forward by 4.000 s, expected at most 1 s at once"
    assert jump(True, [(5, 0), (1, 9)]) == "time went back by 4.000 s"

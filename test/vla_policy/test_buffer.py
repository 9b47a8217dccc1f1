"""Stamped pushes in; samples, rejections and faults out, against a naive model that keeps everything."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_policy.contract import load_contract
from vla_policy.errors import ObservationError
from vla_policy.observation.buffer import (
    Channel,
    ObservationBuffer,
    ObservationIncomplete,
    Reason,
    camera_channel,
    channels_of,
)

TABLETOP = Path(__file__).resolve().parents[2] / "config" / "robots" / "tabletop.yaml"
MS = 1_000_000
S = 1000 * MS
CAMERA, JOINTS = Channel("camera", "/camera/image", 300 * MS), Channel("joints", "/joint_states", 100 * MS)


def make_buffer(**options: float) -> ObservationBuffer:
    return ObservationBuffer([CAMERA, JOINTS], **options)


def push(buffer: ObservationBuffer, channel: str, *stamps_ms: int, now_ms: int = 10_000) -> None:
    for stamp in stamps_ms:
        assert buffer.push(channel, stamp * MS, f"{channel}@{stamp}", now_ns=now_ms * MS) is None


def test_channels_follow_the_contract() -> None:
    channels = {channel.name: channel for channel in channels_of(load_contract(TABLETOP))}
    assert list(channels) == ["camera.static", "camera.wrist", "joints", "pose"]
    assert channels[camera_channel("static")] == Channel("camera.static", "/camera/static/image_raw",
                                                         300 * MS)
    assert channels["pose"].max_age_ns == 200 * MS


def test_sample_takes_the_newest_that_is_not_newer() -> None:
    buffer = make_buffer()
    push(buffer, "camera", 1000, 1100, 1200)
    push(buffer, "joints", 1090, 1101, 1199)
    sample = buffer.sample(1100 * MS)
    assert sample.payloads == {"camera": "camera@1100", "joints": "joints@1090"}
    assert sample.stamps_ns == {"camera": 1100 * MS, "joints": 1090 * MS} and sample.asof_ns == 1100 * MS


def test_latest_complete_is_the_slowest_channels_newest() -> None:
    buffer = make_buffer()
    assert buffer.latest_complete_ns() is None
    push(buffer, "camera", 1000, 1100)
    assert buffer.latest_complete_ns() is None
    push(buffer, "joints", 1050)
    assert buffer.latest_complete_ns() == 1050 * MS


def test_faults_name_channel_topic_age_and_limit() -> None:
    buffer = make_buffer()
    push(buffer, "joints", 1000)
    assert buffer.faults(1100 * MS).keys() == {"camera"}
    with pytest.raises(ObservationIncomplete) as caught:
        buffer.sample(1101 * MS)
    assert caught.value.faults == {
        "camera": "camera: expected a message on /camera/image within 0.300 s, got none; "
                  "is its driver running?",
        "joints": "joints: expected a message on /joint_states within 0.100 s, got one 0.101 s old; "
                  "check its driver and its clock"}
    assert isinstance(caught.value, ObservationError) and "/camera/image" in str(caught.value)
    push(buffer, "camera", 1000)
    assert buffer.faults(1100 * MS) == {}


@pytest.mark.parametrize(("stamp_ms", "reason", "words"), [
    (0, Reason.ZERO_STAMP, "header.stamp is not set"),
    (-5, Reason.ZERO_STAMP, "header.stamp is not set"),
    (400, Reason.BEFORE_EPISODE, "stamped 0.100 s before the episode began"),
    (1000, Reason.DUPLICATE, "stamped as the sample before it (1.000 s)"),
    (800, Reason.OUT_OF_ORDER, "stamped 0.200 s before the sample that came earlier"),
    (1301, Reason.FUTURE, "stamped 0.101 s ahead of now; set both machines' clocks"),
])
def test_a_bad_stamp_is_refused_counted_and_never_sampled(stamp_ms: int, reason: Reason, words: str) -> None:
    buffer = make_buffer()
    buffer.start_episode(500 * MS)
    push(buffer, "camera", 900, 1000, now_ms=1200)
    push(buffer, "joints", 1000, now_ms=1200)
    rejection = buffer.push("camera", stamp_ms * MS, "bad", now_ns=1200 * MS)
    assert rejection is not None and rejection.reason is reason and rejection.channel == "camera"
    assert rejection.message.startswith("camera on /camera/image: ") and words in rejection.message
    assert buffer.rejected() == {"camera": {reason: 1}, "joints": {}}
    assert buffer.sample(1100 * MS).payloads["camera"] == "camera@1000"


def test_the_future_tolerance_can_be_set() -> None:
    buffer = make_buffer(future_tolerance_s=1.0)
    assert buffer.push("camera", 2000 * MS, "a", now_ns=1000 * MS) is None
    assert buffer.push("camera", 2001 * MS, "b", now_ns=1000 * MS).reason is Reason.FUTURE


def test_an_episode_start_forgets_what_is_older_and_keeps_what_is_not() -> None:
    buffer = make_buffer()
    push(buffer, "camera", 900, 1000, 1050)
    push(buffer, "joints", 990, 1001)
    buffer.start_episode(1000 * MS)
    assert buffer.sample(1049 * MS).payloads == {"camera": "camera@1000", "joints": "joints@1001"}
    with pytest.raises(ObservationIncomplete) as caught:
        buffer.sample(1000 * MS)
    assert caught.value.faults.keys() == {"joints"}
    assert buffer.push("joints", 999 * MS, "old", now_ns=10 * S).reason is Reason.BEFORE_EPISODE


def test_a_clock_that_jumped_back_begins_again() -> None:
    buffer = make_buffer()
    push(buffer, "camera", 9000, now_ms=9000)
    push(buffer, "joints", 9000, now_ms=8900)  # within the tolerance
    assert buffer.latest_complete_ns() == 9000 * MS
    push(buffer, "camera", 50, now_ms=50)
    assert buffer.latest_complete_ns() is None
    push(buffer, "joints", 60, now_ms=60)
    assert buffer.latest_complete_ns() == 50 * MS


def test_a_ring_holds_no_more_than_it_may_need() -> None:
    buffer = make_buffer(capacity=10)
    push(buffer, "camera", *range(1000, 1100))
    push(buffer, "joints", 1090, 5000)
    with pytest.raises(ObservationIncomplete) as caught:
        buffer.sample(1089 * MS)  # the camera's ten newest begin at 1090
    assert caught.value.faults.keys() == {"camera", "joints"}


def test_a_ring_keeps_what_a_late_channel_may_ask_for() -> None:
    buffer = make_buffer()
    push(buffer, "joints", 1300)
    push(buffer, "camera", 1000, 1650)  # the next frame is already here, the joints of its instant are not
    assert buffer.sample(1300 * MS).payloads == {"camera": "camera@1000", "joints": "joints@1300"}


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ObservationError, match="expected at least 1 channel"):
        ObservationBuffer([])
    with pytest.raises(ObservationError, match="capacity 0"):
        make_buffer(capacity=0)
    with pytest.raises(KeyError, match="did you mean 'camera'"):
        make_buffer().push("camra", S, None, S)


class NaiveBuffer:
    """What ObservationBuffer must do, written without rings: every accepted sample is kept and searched."""

    def __init__(self) -> None:
        self.kept: dict[str, list[int]] = {CAMERA.name: [], JOINTS.name: []}
        self.start = 0

    def push(self, channel: str, stamp: int, now: int) -> bool:
        """Whether the sample is good."""
        newest = max(self.kept[channel], default=0)
        if stamp <= 0 or stamp < self.start or stamp > now + 100 * MS or stamp <= newest:
            return False
        self.kept[channel].append(stamp)
        return True

    def start_episode(self, start: int) -> None:
        self.start = start
        self.kept = {channel: [stamp for stamp in stamps if stamp >= start] for channel,
                     stamps in self.kept.items()}

    def sample(self, asof: int) -> dict[str, int | None]:
        """Channel -> stamp of its sample, None where it is missing or stale."""
        result: dict[str, int | None] = {}
        for channel in (CAMERA, JOINTS):
            newest = max((stamp for stamp in self.kept[channel.name] if stamp <= asof), default=None)
            fresh = newest is not None and asof - newest <= channel.max_age_ns
            result[channel.name] = newest if fresh else None
        return result


PUSH = st.tuples(st.just("push"), st.sampled_from(["camera", "joints"]), st.integers(-250, 250))
SAMPLE = st.tuples(st.just("sample"), st.just(""), st.integers(-300, 50))
START = st.tuples(st.just("start"), st.just(""), st.integers(-300, 200))
WAIT = st.tuples(st.just("wait"), st.just(""), st.integers(0, 400))


@settings(max_examples=300)
@given(st.lists(st.one_of(PUSH, PUSH, PUSH, SAMPLE, START, WAIT), max_size=60))
def test_it_does_what_the_naive_model_does(steps: list[tuple[str, str, int]]) -> None:
    """Offsets are ms from a clock that only `wait` moves; samples look back as far as a worker may."""
    buffer, model, now, start = make_buffer(), NaiveBuffer(), 1000 * MS, 0
    for step, channel, offset_ms in steps:
        instant = now + offset_ms * MS
        if step == "wait":
            now = instant
        elif step == "start":
            start = instant
            buffer.start_episode(start)
            model.start_episode(start)
        elif step == "push":
            assert (buffer.push(channel, instant, instant, now) is None) == model.push(channel, instant, now)
        else:
            compare(buffer, model, instant, start)
    full = all(model.kept.values())
    assert buffer.latest_complete_ns() == (min(map(max, model.kept.values())) if full else None)


def compare(buffer: ObservationBuffer, model: NaiveBuffer, asof: int, start: int) -> None:
    expected = model.sample(asof)
    bad = {channel for channel, stamp in expected.items() if stamp is None}
    assert buffer.faults(asof).keys() == bad
    if bad:
        with pytest.raises(ObservationIncomplete) as caught:
            buffer.sample(asof)
        assert caught.value.faults.keys() == bad
        return
    sample = buffer.sample(asof)
    assert sample.stamps_ns == sample.payloads == expected
    assert all(start <= stamp <= asof for stamp in sample.stamps_ns.values())


def test_threads_may_push_while_another_samples() -> None:
    buffer = make_buffer()
    push(buffer, "camera", 1000, now_ms=1000)
    push(buffer, "joints", 1000, now_ms=1000)
    done = threading.Event()

    def feed() -> None:
        for step in range(1, 3000):
            for channel in ("camera", "joints"):
                buffer.push(channel, S + step, step, S + step)
        done.set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    samples = 0
    while not done.is_set() or samples == 0:
        newest = buffer.latest_complete_ns()
        assert newest is not None
        sample = buffer.sample(newest)
        assert max(sample.stamps_ns.values()) <= newest
        samples += 1
    feeder.join(10)
    assert not feeder.is_alive() and buffer.latest_complete_ns() == S + 2999

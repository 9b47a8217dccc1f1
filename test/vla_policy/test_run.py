"""PolicyRun: when it steps, what it skips, and every way in which it ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from policies import tabletop

from vla_policy.errors import ActionError, InstructionError, ObservationError
from vla_policy.execution import Execution, PacedPolicy
from vla_policy.observation.buffer import Channel, ObservationBuffer, Sample
from vla_policy.run import FIRST_OBSERVATION_S, EndReason, PolicyRun, RunEnd, RunRequest
from vla_policy.types import NS_PER_S, ActionChunk, Observation

MS = 1_000_000
PERIOD_MS = 200
LOST_AFTER_S = 1.0


class ScriptedPolicy:
    """Remembers the stamps it was stepped at; refuses instructions with the word 'teapot'."""

    period_ns = PERIOD_MS * MS

    def __init__(self) -> None:
        self.timings = {"model": 2.0}
        self.stamps_ms: list[int] = []
        self.instructions: list[str] = []

    def reset(self, instruction: str) -> None:
        if "teapot" in instruction:
            raise InstructionError("unknown word 'teapot'")
        self.instructions.append(instruction)

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        self.stamps_ms.append(observation.stamp_ns // MS)
        return ActionChunk(observation.stamp_ns, 50 * MS, np.zeros((8, 7)), 4, run_id)


class Scene:
    """A run with one camera and the joints, fed and polled by hand; steady time equals ROS time unless told."""

    def __init__(
        self,
        request: RunRequest | None = None,
        slack_ms: int = 25,
        decode: Callable[[Sample], Observation] | None = None,
        execution: Execution = Execution.ASYNC,
    ) -> None:
        self.policy = ScriptedPolicy()
        self.buffer = ObservationBuffer(
            [Channel("camera.eye", "/eye", 300 * MS), Channel("joints", "/joints", 200 * MS)]
        )
        self.run = PolicyRun(
            request or RunRequest(7, "open the drawer"),
            PacedPolicy(self.policy, tabletop(), execution, slack_ms * MS),
            self.buffer,
            decode or (lambda sample: Observation(sample.asof_ns, {}, np.zeros(8), None)),
            ["eye"],
            LOST_AFTER_S,
        )
        assert self.run.begin() is None

    def feed(self, stamp_ms: int, *channels: str) -> None:
        for channel in channels or ("camera.eye", "joints"):
            self.buffer.push(channel, stamp_ms * MS, None, stamp_ms * MS)

    def poll(self, now_ms: int, steady_ms: int | None = None) -> ActionChunk | RunEnd | None:
        return self.run.poll(now_ms * MS, (now_ms if steady_ms is None else steady_ms) * MS)

    def see(self, stamp_ms: int) -> ActionChunk | RunEnd | None:
        """Everything arrives for an instant, then the run looks."""
        self.feed(stamp_ms)
        return self.poll(stamp_ms)


def test_it_steps_on_the_grid_that_the_first_observation_begins() -> None:
    scene = Scene()
    assert scene.poll(900) is None
    for stamp in range(1030, 2080, 50):
        scene.see(stamp)
    assert scene.policy.stamps_ms == [1030, 1230, 1430, 1630, 1830, 2030]
    assert scene.run.progress.inferences == 6
    assert scene.run.progress.elapsed_ns == 1000 * MS


def test_a_chunk_bears_the_stamp_of_its_observation_and_the_id_of_its_run() -> None:
    chunk = Scene().see(1000)
    assert isinstance(chunk, ActionChunk)
    assert (chunk.stamp_ns, chunk.run_id) == (1000 * MS, 7)


def test_stamps_that_jitter_by_less_than_the_slack_do_not_shift_the_grid() -> None:
    scene = Scene(slack_ms=25)
    for stamp in (1000, 1190, 1410, 1580, 1800, 1970, 1980):  # grid: 1000, 1200, 1400, 1600, 1800, 2000
        scene.see(stamp)
    assert scene.policy.stamps_ms == [1000, 1190, 1410, 1580, 1800, 1980]


def test_ticks_that_were_missed_are_skipped_and_not_caught_up() -> None:
    scene = Scene()
    for stamp in (1000, 1200, 1950, 1990, 2000, 2190):
        scene.see(stamp)
    assert scene.policy.stamps_ms == [1000, 1200, 1950, 1990, 2190]  # 1950 is of the tick 1800, 1990 of 2000


def test_without_slack_a_tick_is_never_early() -> None:
    scene = Scene(slack_ms=0)
    for stamp in (1000, 1199, 1200, 1399, 1400):
        scene.see(stamp)
    assert scene.policy.stamps_ms == [1000, 1200, 1400]


def test_an_observation_waits_for_its_slowest_channel() -> None:
    scene = Scene()
    scene.feed(1000, "joints")
    assert scene.poll(1000) is None
    scene.feed(1000, "camera.eye")
    assert isinstance(scene.poll(1001), ActionChunk)


def test_observations_from_before_the_episode_are_not_used() -> None:
    scene = Scene(RunRequest(1, "open the drawer", not_before_ns=1500 * MS))
    assert scene.see(1450) is None
    assert isinstance(scene.see(1500), ActionChunk)


def test_a_new_episode_in_the_middle_of_a_run_flushes_history_and_begins_a_new_grid() -> None:
    scene = Scene(RunRequest(1, "open the drawer", time_limit_ns=1000 * MS), slack_ms=0)
    for stamp in (1000, 1200):
        scene.see(stamp)
    scene.run.begin_episode(1330 * MS)
    assert scene.see(1300) is None  # of the old scene
    for stamp in (1330, 1400, 1530, 1600):
        scene.see(stamp)
    assert scene.policy.stamps_ms == [1000, 1200, 1330, 1530]
    assert scene.policy.instructions == ["open the drawer"] * 2
    assert scene.see(2130).reason is EndReason.TIME_LIMIT  # of the whole run


def test_streams_that_all_stopped_long_ago_begin_no_run() -> None:
    scene = Scene()
    scene.feed(1000)
    assert scene.poll(1000 + 400) is None  # older than every max age
    assert scene.policy.stamps_ms == []
    assert isinstance(scene.see(1500), ActionChunk)


def test_an_observation_that_overtakes_the_clock_is_used() -> None:
    scene = Scene()
    scene.feed(1050)
    assert isinstance(scene.poll(1000), ActionChunk)


@pytest.mark.parametrize(("limit_ms", "last_ms", "end_ms"), [(600, 1400, 1600), (500, 1400, 1600), (610, 1600, 1800)])
def test_the_time_limit_ends_the_run_at_a_tick(limit_ms: int, last_ms: int, end_ms: int) -> None:
    scene = Scene(RunRequest(1, "open the drawer", time_limit_ns=limit_ms * MS), slack_ms=0)
    outcomes = {stamp: scene.see(stamp) for stamp in range(1000, end_ms + 1, 50)}
    end = outcomes.pop(end_ms)
    assert isinstance(end, RunEnd) and end.reason is EndReason.TIME_LIMIT
    assert f"{limit_ms / 1000:g} s" in end.message
    assert not any(isinstance(outcome, RunEnd) for outcome in outcomes.values())
    assert scene.policy.stamps_ms[-1] == last_ms
    assert scene.run.progress.elapsed_ns == (end_ms - 1000) * MS


def test_silence_is_told_then_ends_the_run_by_the_steady_clock() -> None:
    scene = Scene()
    scene.see(1000)
    scene.feed(1200, "joints")
    assert scene.poll(1200, steady_ms=1200) is None
    assert scene.run.progress.waiting_for == ""
    assert scene.poll(1400, steady_ms=1990) is None
    assert "camera.eye: expected a message on /eye" in scene.run.progress.waiting_for
    end = scene.poll(1400, steady_ms=2000)  # simulated time stands still, patience does not
    assert isinstance(end, RunEnd) and end.reason is EndReason.OBSERVATION_LOST
    assert "camera.eye: expected a message on /eye within 0.300 s, got one 0.400 s old" in end.message


def test_a_stream_that_recovers_in_time_goes_on() -> None:
    scene = Scene()
    scene.see(1000)
    assert scene.poll(1900) is None and scene.run.progress.waiting_for
    assert isinstance(scene.see(1950), ActionChunk)
    assert scene.run.progress.waiting_for == ""
    assert scene.poll(2900) is None  # the patience began anew


def test_the_first_observation_may_take_longer() -> None:
    scene, patience_ms = Scene(), round(FIRST_OBSERVATION_S * 1000)
    assert scene.poll(0, steady_ms=0) is None
    assert scene.poll(0, steady_ms=patience_ms - 1) is None
    end = scene.poll(0, steady_ms=patience_ms)
    assert isinstance(end, RunEnd) and end.reason is EndReason.OBSERVATION_LOST
    assert "/eye" in end.message and "/joints" in end.message


def test_what_cannot_be_decoded_ends_the_run_in_its_own_words() -> None:
    def decode(sample: Sample) -> Observation:
        raise ObservationError("/eye: got encoding '16UC1', expected rgb8")

    end = Scene(decode=decode).see(1000)
    assert end == RunEnd(EndReason.OBSERVATION_INVALID, "/eye: got encoding '16UC1', expected rgb8")


def test_an_instruction_that_cannot_be_read_ends_the_run_before_it_begins() -> None:
    scene = Scene()
    paced = PacedPolicy(scene.policy, tabletop())
    run = PolicyRun(RunRequest(8, "fetch the teapot"), paced, scene.buffer, lambda sample: None, ["eye"], 1.0)
    end = run.begin()
    assert end == RunEnd(EndReason.INSTRUCTION_REFUSED, "unknown word 'teapot'")


def test_an_error_of_the_policy_is_not_hidden() -> None:
    scene = Scene()

    def step(observation: Observation, run_id: int) -> ActionChunk:
        raise ActionError("not finite")

    scene.policy.step = step
    with pytest.raises(ActionError, match="not finite"):
        scene.see(1000)


def test_progress_tells_ages_and_timings() -> None:
    scene = Scene()
    scene.feed(1000, "camera.eye")
    scene.feed(1040, "joints")
    scene.feed(1040, "camera.eye")
    scene.poll(1055)
    progress = scene.run.progress
    assert progress.image_age_ns == 15 * MS
    assert progress.timings_ms["model"] == 2.0 and progress.timings_ms["decode"] >= 0.0
    assert progress.observation_ns == 1040 * MS < NS_PER_S * 2


def test_the_numbers_of_reasons_never_change() -> None:
    assert [reason.name for reason in EndReason] == [
        "SUCCEEDED",
        "TIME_LIMIT",
        "CANCELED",
        "SAFETY_STOP",
        "OBSERVATION_LOST",
        "INSTRUCTION_REFUSED",
        "FAILED",
        "POLICY_ERROR",
        "DEACTIVATED",
        "OBSERVATION_INVALID",
    ]
    assert list(EndReason) == list(range(10))


def test_new_images_wait_for_the_state_of_their_instant() -> None:
    """Joints at 100 Hz are a little behind each image: as of them the observation would be a camera's period old."""
    scene = Scene()
    scene.see(1000)
    scene.feed(1167, "camera.eye")
    scene.feed(1195, "joints")
    assert scene.poll(1196) is None  # the image of 1167 belongs to no tick
    scene.feed(1200, "camera.eye")
    assert scene.poll(1201) is None  # complete as of 1195, and the image of 1200 is here
    scene.feed(1205, "joints")
    assert isinstance(scene.poll(1206), ActionChunk)
    assert scene.policy.stamps_ms == [1000, 1200]


def test_state_that_is_always_behind_the_images_delays_a_tick_by_the_slack_at_most() -> None:
    scene = Scene(slack_ms=25)
    scene.see(1000)
    for stamp in range(1010, 1400, 10):
        scene.feed(stamp, "camera.eye")
        scene.feed(stamp - 5, "joints")
        scene.poll(stamp)
    assert scene.policy.stamps_ms == [1000, 1225]


def test_a_blocking_run_is_not_lost_while_it_executes() -> None:
    """700 ms of inference and then 200 ms of rows: longer than patience, and yet nothing is missing."""
    scene = Scene(execution=Execution.BLOCKING)
    chunk = scene.see(1000)
    sent = scene.run.release(chunk, 1700 * MS)
    assert sent.stamp_ns == 1700 * MS
    for stamp in range(1750, 1850, 50):
        assert scene.see(stamp) is None
    assert scene.run.progress.waiting_for == ""
    assert scene.see(1900) is not None
    assert scene.policy.stamps_ms == [1000, 1900]

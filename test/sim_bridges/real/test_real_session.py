"""A session with an operator, a robot and a recorder that are made up: what is kept, and what never gets lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_player import made_up

from sim_bridges.evaluation.trials import Trial, TrialResult
from sim_bridges.real.benchmark import RealTrial
from sim_bridges.real.session import Choice, Ending, Judgement, Progress, Session, Verdict
from sim_bridges.results import EpisodeResult
from vla_policy.errors import VlaError

TRIALS = [
    RealTrial(task, setting, 0, f"do {task}", ("make it so",), "it is done", 9.0)
    for setting in ("simple", "unseen_object")
    for task in ("open", "lift")
]
SUCCESS, FAILURE, REPEAT = (Judgement(verdict) for verdict in (Verdict.SUCCESS, Verdict.FAILURE, Verdict.REPEAT))


class Scripted:
    """An operator who answers from lists; where they are used up, starts, lets it end by itself and says success."""

    def __init__(self) -> None:
        self.choices: list[Choice] = []
        self.endings: list[Ending | None] = []
        self.judgements: list[Judgement] = []
        self.resets: list[bool] = []
        self.heard: list[str] = []
        self.shown: list[str] = []
        self.suggested: list[Verdict] = []

    def prepare(self, trial: RealTrial, number: int, total: int) -> Choice:
        self.shown.append(f"{number}/{total} {trial.trial.name}")
        return self.choices.pop(0) if self.choices else Choice.START

    def follow(self, states: Iterator[Progress], end: Callable[[Ending], None]) -> Ending | None:
        ending = self.endings.pop(0) if self.endings else None
        for number, state in enumerate(states):
            self.seen = state
            if number == 1 and ending is not None:
                end(ending)
        return ending

    def judge(self, trial: RealTrial, episode: EpisodeResult, suggested: Verdict) -> Judgement:
        self.suggested.append(suggested)
        return self.judgements.pop(0) if self.judgements else SUCCESS

    def reset(self, why: str) -> bool:
        self.heard.append(why)
        return self.resets.pop(0) if self.resets else True

    def tell(self, words: str) -> None:
        self.heard.append(words)


class Robot:
    """reasons: how its runs end by themselves. break_at: what happens in the states of a run, by its number from 1."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.faults: list[str] = []
        self.break_at: dict[int, BaseException] = {}
        self.refusal = ""
        self.runs = 0
        self.moving = False
        self.told: list[str] = []
        self.ended: list[Ending] = []

    def fault(self) -> str:
        return self.faults[0] if self.faults else ""

    def reset(self) -> None:
        if self.faults.pop(0) == "e-stop pressed":
            raise VlaError("not reset: release the emergency stop")

    def begin(self, instruction: str, time_limit_s: float) -> None:
        if self.refusal:
            self.refusal, refusal = "", self.refusal
            raise VlaError(refusal)
        self.runs, self.moving = self.runs + 1, True
        self.told.append(instruction)

    def states(self) -> Iterator[Progress]:
        for number in range(5):
            if number == 2 and self.runs in self.break_at:
                raise self.break_at.pop(self.runs)
            yield Progress(number / 10, "running", "guard passes")
            if self.ended:
                break
        self.moving = False
        self.reason = {Ending.SUCCESS: "SUCCEEDED", Ending.FAILURE: "FAILED", Ending.STOP: "CANCELED"}[
            self.ended.pop()
        ] if self.ended else (self.reasons.pop(0) if self.reasons else "TIME_LIMIT")  # fmt: skip

    def end(self, ending: Ending) -> None:
        self.ended.append(ending)

    def episode(self, task: str, seed: int) -> EpisodeResult:
        from dataclasses import replace

        return replace(made_up(Trial(task, seed)).episodes[0], reason=self.reason, message="as it ended")

    def abandon(self) -> None:
        self.moving = False


class Recorder:
    """Keeps what was recorded as lines: `kept 1 True remark`, `deleted 2`."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0
        self.open = False
        self.refusal = self.failure = self.broken = ""

    def fault(self) -> str:
        return self.broken

    def start(self, instruction: str, task: str) -> None:
        if self.refusal:
            self.refusal, refusal = "", self.refusal
            raise VlaError(refusal)
        assert not self.open
        self.count, self.open = self.count + 1, True

    def stop(self, success: bool, note: str) -> str:
        self.open = False
        if self.failure:
            raise VlaError(self.failure)
        self.lines.append(f"kept {self.count} {success} {note}".strip())
        return f"bags/{self.count}"

    def discard(self) -> None:
        if self.open:
            self.open = False
            if self.broken:
                raise VlaError(f"nothing is being recorded: {self.broken}")
            self.lines.append(f"deleted {self.count}")


class Played:
    def __init__(self) -> None:
        self.operator, self.robot, self.recorder = Scripted(), Robot(), Recorder()
        self.kept: list[TrialResult] = []

    def play(self, done: tuple[str, ...] = (), recorded: bool = True, last: str = "") -> bool:
        recorder = self.recorder if recorded else None
        return Session(self.operator, self.robot, recorder, self.kept.append).play(TRIALS, done, last)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        episodes = [result.episodes[0] for result in self.kept]
        return [(e.task, e.setting, e.success, e.reason, e.message, e.recording) for e in episodes]


@pytest.fixture
def played() -> Played:
    return Played()


def test_every_trial_is_played_judged_and_recorded(played: Played) -> None:
    played.operator.endings = [Ending.SUCCESS, Ending.FAILURE, Ending.STOP, None]
    played.operator.judgements = [Judgement(Verdict.FAILURE, "it slipped"), SUCCESS]
    assert played.play()
    assert played.operator.shown[0] == "1/4 open/simple/0"
    assert played.robot.told == ["do open", "do lift", "do open", "do lift"]
    assert played.rows == [
        ("open", "simple", True, "SUCCEEDED", "as it ended", "bags/1"),
        ("lift", "simple", False, "FAILED", "as it ended", "bags/2"),
        ("open", "unseen_object", False, "CANCELED", "it slipped", "bags/3"),
        ("lift", "unseen_object", True, "TIME_LIMIT", "as it ended", "bags/4"),
    ]
    assert played.recorder.lines == ["kept 1 True", "kept 2 False", "kept 3 False it slipped", "kept 4 True"]


def test_a_session_is_gone_on_with_at_the_first_trial_that_was_not_played(played: Played) -> None:
    assert played.play(done=("open/simple/0", "open/unseen_object/0"))
    assert [result.trial.name for result in played.kept] == ["lift/simple/0", "lift/unseen_object/0"]
    assert played.operator.shown == ["2/4 lift/simple/0", "4/4 lift/unseen_object/0"]


def test_what_is_skipped_or_left_by_quitting_is_not_kept(played: Played) -> None:
    played.operator.choices = [Choice.SKIP]
    assert not played.play()
    assert len(played.kept) == 3 and "1 skipped; start again" in played.operator.heard[-1]
    played.operator.choices, played.kept = [Choice.START, Choice.QUIT], []
    assert not played.play()
    assert len(played.kept) == 1


def test_the_one_before_is_played_again_and_its_new_result_counts(played: Played) -> None:
    played.operator.choices = [Choice.AGAIN, Choice.START, Choice.AGAIN, Choice.START, Choice.START]
    played.operator.judgements = [FAILURE]
    assert played.play()
    assert "no trial was played before" in played.operator.heard[0]
    assert [row[:3] for row in played.rows[:3]] == [
        ("open", "simple", False), ("open", "simple", True), ("lift", "simple", True)
    ]  # fmt: skip
    again = Played()
    again.operator.choices = [Choice.AGAIN, Choice.START, Choice.QUIT]
    assert not again.play(done=("open/simple/0",), last="open/simple/0")
    assert [row[:2] for row in again.rows] == [("open", "simple")]


def test_a_repeat_does_not_count_and_its_recording_is_deleted(played: Played) -> None:
    played.operator.judgements = [REPEAT, SUCCESS]
    assert played.play()
    assert played.operator.shown[:2] == ["1/4 open/simple/0"] * 2
    assert played.recorder.lines[:2] == ["deleted 1", "kept 2 True"]
    assert len(played.kept) == 4


@pytest.mark.parametrize(
    ("reason", "suggested"),
    [("SUCCEEDED", Verdict.SUCCESS), ("TIME_LIMIT", Verdict.FAILURE), ("INSTRUCTION_REFUSED", Verdict.FAILURE),
     ("SAFETY_STOP", Verdict.REPEAT), ("POLICY_ERROR", Verdict.REPEAT)],
)  # fmt: skip
def test_how_a_run_ended_suggests_what_it_was(played: Played, reason: str, suggested: Verdict) -> None:
    played.robot.reasons = [reason]
    played.play()
    assert played.operator.suggested[0] is suggested


def test_a_safety_stop_is_explained_and_reset_before_the_next_run(played: Played) -> None:
    played.robot.reasons = ["SAFETY_STOP"]
    played.operator.judge = lambda *_: played.robot.faults.extend(["e-stop pressed", "tool left the workspace"]) or (
        FAILURE if not played.kept else SUCCESS
    )
    played.operator.choices = [Choice.START, Choice.QUIT]
    assert not played.play()
    assert played.operator.heard[:3] == [
        "e-stop pressed", "not reset: release the emergency stop", "tool left the workspace"
    ]  # fmt: skip
    assert played.rows[0][2:4] == (False, "SAFETY_STOP")


def test_a_guard_that_is_left_as_it_is_starts_nothing(played: Played) -> None:
    played.robot.faults, played.operator.resets = ["tool left the workspace"], [False]
    played.operator.choices = [Choice.START, Choice.QUIT]
    assert not played.play()
    assert (played.robot.runs, played.recorder.count, played.kept) == (0, 0, [])


def test_a_verdict_is_kept_before_the_guard_is_spoken_of(played: Played) -> None:
    def leave(why: str) -> bool:
        raise KeyboardInterrupt

    played.operator.judge = lambda *_: played.robot.faults.append("tool left the workspace") or FAILURE
    played.operator.reset = leave
    with pytest.raises(KeyboardInterrupt):
        played.play()
    assert [row[2] for row in played.rows] == [False] and played.recorder.lines == ["kept 1 False"]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit()])
def test_ctrl_c_in_the_middle_ends_the_run_and_keeps_what_was_judged(played: Played, interrupt: BaseException) -> None:
    played.robot.break_at = {2: interrupt}
    with pytest.raises(type(interrupt)):
        played.play()
    assert [result.trial.name for result in played.kept] == ["open/simple/0"]
    assert not played.robot.moving
    assert played.recorder.lines == ["kept 1 True", "deleted 2"]


def test_ctrl_c_while_judging_keeps_no_half_trial(played: Played) -> None:
    def leave(*_: object) -> Judgement:
        raise KeyboardInterrupt

    played.operator.judge = leave
    with pytest.raises(KeyboardInterrupt):
        played.play()
    assert played.kept == [] and played.recorder.lines == ["deleted 1"]


def test_nodes_that_fall_silent_cost_one_trial_which_comes_again(played: Played) -> None:
    played.robot.break_at = {1: VlaError("no /vla/status for 20 s")}
    assert played.play()
    assert "no /vla/status for 20 s\nThis trial does not count" in played.operator.heard[0]
    assert played.recorder.lines[:2] == ["deleted 1", "kept 2 True"]
    assert len(played.kept) == 4


def test_refusals_are_told_and_the_trial_comes_again(played: Played) -> None:
    played.recorder.refusal, played.robot.refusal = "the camera is silent", "another run is active"
    assert played.play()
    assert [words.splitlines()[0] for words in played.operator.heard] == [
        "the camera is silent", "another run is active"
    ]  # fmt: skip
    assert played.recorder.lines[0] == "deleted 1" and len(played.kept) == 4


def test_a_recording_that_cannot_be_kept_costs_no_verdict(played: Played) -> None:
    played.recorder.failure = "the disk is full"
    assert played.play()
    assert [row[2] for row in played.rows] == [True] * 4
    assert {row[5] for row in played.rows} == {""}
    assert "the disk is full\nThe trial counts, without a recording" in played.operator.heard[0]


def test_a_recording_that_breaks_off_is_told_while_the_robot_runs(played: Played) -> None:
    played.recorder.broken, played.operator.judgements = "the disk is full", [REPEAT]
    assert played.play()
    assert "nothing is being recorded: the disk is full" in played.operator.heard and len(played.kept) == 4
    assert played.operator.seen.status == "NOT RECORDED: the disk is full"


def test_without_a_recorder_nothing_is_recorded(played: Played) -> None:
    assert played.play(recorded=False)
    assert played.recorder.count == 0 and played.rows[0][5] == ""


def test_what_cannot_be_ended_is_told_beside_the_error(played: Played) -> None:
    def stuck() -> None:
        raise VlaError("waited 20 s for the run to end; use the emergency stop")

    played.robot.break_at, played.robot.abandon = {1: KeyboardInterrupt()}, stuck
    with pytest.raises(KeyboardInterrupt):
        played.play()
    assert "emergency stop" in played.operator.heard[0] and played.recorder.lines == ["deleted 1"]

"""Trials, an operator, a robot and a recorder in, judged results out: one session of a benchmark on a real robot.

Nothing here knows of ROS or of a terminal. A trial is kept once the operator has judged it; whatever goes wrong before
that ends its run, deletes its recording and leaves the trial to be played again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from sim_bridges.evaluation.trials import TrialResult
from sim_bridges.real.benchmark import RealTrial
from sim_bridges.results import EpisodeResult
from vla_policy.errors import VlaError
from vla_policy.run import EndReason

Keep = Callable[[TrialResult], None]

# These ends say nothing about what the policy can do.
FAULTS = (
    EndReason.SAFETY_STOP,
    EndReason.OBSERVATION_LOST,
    EndReason.OBSERVATION_INVALID,
    EndReason.POLICY_ERROR,
    EndReason.DEACTIVATED,
)


class Choice(StrEnum):
    """What the operator wants with the trial that comes next. AGAIN: play the one before it once more."""

    START = "start"
    SKIP = "skip"
    AGAIN = "again"
    QUIT = "quit"


class Ending(StrEnum):
    """How the operator ends a run that goes on. STOP: without a verdict yet."""

    SUCCESS = "success"
    FAILURE = "failure"
    STOP = "stop"


class Verdict(StrEnum):
    """What a trial was. REPEAT: it does not count and is played again."""

    SUCCESS = "success"
    FAILURE = "failure"
    REPEAT = "repeat"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and, if the operator likes, a remark."""

    verdict: Verdict
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run goes. elapsed_s: since its first observation. status: of the policy. safety: of the guard."""

    elapsed_s: float
    status: str
    safety: str


class Operator(Protocol):
    """The person at the robot."""

    def prepare(self, trial: RealTrial, number: int, total: int) -> Choice:
        """Shown what to set up; the answer is the choice. number: of the trial, from 1."""

    def follow(self, states: Iterator[Progress], end: Callable[[Ending], None]) -> Ending | None:
        """Watch a run until `states` ends; call `end` to end it sooner. Returns how it was ended, None if by itself."""

    def judge(self, trial: RealTrial, episode: EpisodeResult, suggested: Verdict) -> Judgement:
        """Say what a run was that ended by itself."""

    def reset(self, why: str) -> bool:
        """Told why the guard holds the robot; True: reset it now, False: leave it."""

    def tell(self, words: str) -> None:
        """Told something that asks for no answer."""


class Robot(Protocol):
    """The robot with its policy and guard."""

    def fault(self) -> str:
        """Why the guard holds the robot; empty where it does not."""

    def reset(self) -> None:
        """End a latched stop. Raises: VlaError saying why that cannot be."""

    def begin(self, instruction: str, time_limit_s: float) -> None:
        """Send an instruction. Raises: VlaError where nobody takes it."""

    def states(self) -> Iterator[Progress]:
        """How the run goes, several times a second until it has ended. Raises: VlaError where nobody answers."""

    def end(self, ending: Ending) -> None:
        """Ask for the end of the run."""

    def episode(self, task: str, seed: int) -> EpisodeResult:
        """What became of the run that has ended."""

    def abandon(self) -> None:
        """End whatever goes on, without a word if nothing does; it shall not move on alone."""


class Recorder(Protocol):
    """What writes each trial into a bag."""

    def start(self, instruction: str, task: str) -> None:
        """Begin an episode. Raises: VlaError saying why nothing is recorded."""

    def fault(self) -> str:
        """Why the episode that was begun is not recorded any more; empty where all is well."""

    def stop(self, success: bool, note: str) -> str:
        """End and keep it; returns its folder. Raises: VlaError where it could not be kept."""

    def discard(self) -> None:
        """End and delete it, if there is one."""


class Session:
    """Plays trials with an operator. recorder: None to record nothing. keep: called with every judged trial."""

    def __init__(self, operator: Operator, robot: Robot, recorder: Recorder | None, keep: Keep) -> None:
        self._operator, self._robot, self._recorder, self._keep = operator, robot, recorder, keep
        self._last: tuple[int, RealTrial] | None = None

    def play(self, trials: Sequence[RealTrial], done: Collection[str], last: str = "") -> bool:
        """Play those of `trials` whose names are not in `done`. last: name of the trial played before this session.

        Returns False where the operator quit or left something out. Raises: KeyboardInterrupt, after the run was ended.
        """
        numbered = list(enumerate(trials, 1))
        self._last = next(((number, trial) for number, trial in numbered if trial.trial.name == last), None)
        skipped = 0
        for number, trial in numbered:
            if trial.trial.name in done:
                continue
            choice = self._offer(trial, number, len(trials))
            if choice is Choice.QUIT:
                return False
            if choice is Choice.SKIP:
                skipped += 1
            else:
                self._last = (number, trial)
        if skipped:
            self._operator.tell(f"{skipped} skipped; start again with the same --output to play what was left out")
        return not skipped

    def _offer(self, trial: RealTrial, number: int, total: int) -> Choice:
        """Until the trial was played and kept, or the operator wants to go on or to quit."""
        while True:
            choice = self._operator.prepare(trial, number, total)
            if choice is Choice.AGAIN:
                self._again(total)
            elif choice is not Choice.START or self._trial(trial):
                return choice

    def _again(self, total: int) -> None:
        if self._last is None:
            self._operator.tell("no trial was played before this one")
            return
        number, trial = self._last
        if self._operator.prepare(trial, number, total) is Choice.START:
            self._trial(trial)

    def _trial(self, trial: RealTrial) -> bool:
        """Play and keep one; False where it was not kept, and the operator was told why."""
        try:
            if not self._released():
                return False
            if self._recorder is not None:
                self._recorder.start(trial.instruction, f"{trial.task}/{trial.setting}")
            self._robot.begin(trial.instruction, trial.time_limit_s)
            ending = self._operator.follow(self._states(), self._robot.end)
            episode = self._robot.episode(trial.task, trial.number)
            judgement = self._judge(trial, episode, ending)
        except VlaError as problem:
            self._abandon()
            self._operator.tell(f"{problem}\nThis trial does not count; it comes again.")
            return False
        except BaseException:  # Ctrl-C: the robot must not go on without anybody
            self._abandon()
            raise
        kept = self._close(trial, episode, judgement)
        self._released()
        return kept

    def _states(self) -> Iterator[Progress]:
        """Those of the robot; a recording that broke off is told in place of the policy's status."""
        for state in self._robot.states():
            fault = self._recorder.fault() if self._recorder is not None else ""
            yield replace(state, status=f"NOT RECORDED: {fault}") if fault else state

    def _judge(self, trial: RealTrial, episode: EpisodeResult, ending: Ending | None) -> Judgement:
        if ending in (Ending.SUCCESS, Ending.FAILURE):
            return Judgement(Verdict(ending.value))
        return self._operator.judge(trial, episode, _suggested(EndReason[episode.reason]))

    def _close(self, trial: RealTrial, episode: EpisodeResult, judgement: Judgement) -> bool:
        if judgement.verdict is Verdict.REPEAT:
            self._discard()
            return False
        success = judgement.verdict is Verdict.SUCCESS
        judged = replace(
            episode,
            success=success,
            setting=trial.setting,
            message=judgement.remark or episode.message,
            recording=self._stop_recording(success, judgement.remark),
        )
        self._keep(TrialResult(trial.trial, (judged,)))
        return True

    def _stop_recording(self, success: bool, note: str) -> str:
        if self._recorder is None:
            return ""
        try:
            return self._recorder.stop(success, note)
        except VlaError as problem:  # what the operator saw counts all the same
            self._operator.tell(f"{problem}\nThe trial counts, without a recording.")
            return ""

    def _released(self) -> bool:
        """Whether the guard lets the robot move; where it does not, the operator is told why and may reset it."""
        while why := self._robot.fault():
            if not self._operator.reset(why):
                return False
            try:
                self._robot.reset()
            except VlaError as problem:
                self._operator.tell(str(problem))
        return True

    def _abandon(self) -> None:
        """End the run and delete the recording; what fails of it is told, because another error is on its way."""
        try:
            self._robot.abandon()
        except VlaError as problem:
            self._operator.tell(str(problem))
        self._discard()

    def _discard(self) -> None:
        try:
            if self._recorder is not None:
                self._recorder.discard()
        except VlaError as problem:
            self._operator.tell(str(problem))


def _suggested(reason: EndReason) -> Verdict:
    """What a run most likely was, by how it ended."""
    if reason is EndReason.SUCCEEDED:
        return Verdict.SUCCESS
    return Verdict.REPEAT if reason in FAULTS else Verdict.FAILURE

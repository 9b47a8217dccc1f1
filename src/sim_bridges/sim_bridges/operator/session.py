"""Events of one recorded episode in, which buttons a person would hold now out; no ROS.

An episode goes: ask to record, hold the dead-man switch and drive, linger after the success, let go, end the recording.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

PRESS_S = 0.15  # how long a button is held down, and how long nothing is pressed before it
PATIENCE_S = 20.0  # for the recorder to begin or end
GRIPPER_S = 0.3  # between two presses for the gripper, so that the first can be seen to have acted


class Step(Enum):
    """What the person is at."""

    ASKING = "asking the recorder to begin"
    DRIVING = "driving"
    LINGERING = "lingering after the success"
    LETTING_GO = "letting go"
    MARKING = "marking the failure"
    ENDING = "ending the recording"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Limits:
    """time_limit_s: of driving. linger_s: driving on after the success, which shows what the end looks like."""

    time_limit_s: float = 15.0
    linger_s: float = 0.4


@dataclass(slots=True)
class Session:
    """One episode. Tell it what was heard, then ask `hold`. Times are of one steady clock [s]."""

    limits: Limits
    step: Step = Step.ASKING
    problem: str = ""
    succeeded: bool = False
    began_s: float | None = None  # when the step began
    _gripper_s: float = field(default=float("-inf"), repr=False)

    @property
    def drives(self) -> bool:
        """Whether the dead-man switch is held."""
        return self.step in (Step.DRIVING, Step.LINGERING)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.step is Step.DONE

    def hear_recording(self, records: bool, now_s: float) -> None:
        """The recorder is writing, or is not."""
        if self.step is Step.ASKING and records:
            self._go(Step.DRIVING, now_s)
        elif self.step is Step.ENDING and not records:
            self._go(Step.DONE, now_s)
        elif self.drives and not records:
            self.fail("the recorder ended the episode by itself", now_s)

    def hear_success(self, now_s: float) -> None:
        """The simulator says that the task is done."""
        if self.step is Step.DRIVING:
            self.succeeded = True
            self._go(Step.LINGERING, now_s)

    def fail(self, problem: str, now_s: float) -> None:
        """Something went wrong; the first thing counts, and nothing after the success does."""
        if not self.succeeded:
            self.problem = self.problem or problem
        if self.drives:
            self._go(Step.LETTING_GO, now_s)

    def hold(self, now_s: float) -> set[str]:
        """Names of what is held down now, as `press` of a mapping has them."""
        if self.began_s is None:
            self.began_s = now_s
        since_s = now_s - self.began_s
        if self.step in (Step.ASKING, Step.ENDING) and since_s > PATIENCE_S:
            self.problem = self.problem or f"{self.step.value}: no answer within {PATIENCE_S:g} s"
            self._go(Step.DONE, now_s)
        elif self.step is Step.DRIVING and since_s > self.limits.time_limit_s:
            self.fail(f"not done within {self.limits.time_limit_s:g} s", now_s)
        elif self.step is Step.LINGERING and since_s > self.limits.linger_s:
            self._go(Step.LETTING_GO, now_s)
        elif self.step is Step.LETTING_GO and since_s > PRESS_S:
            self._go(Step.ENDING if self.succeeded else Step.MARKING, now_s)
        elif self.step is Step.MARKING and since_s > 3 * PRESS_S:
            self._go(Step.ENDING, now_s)
        return self._held(now_s - self.began_s)

    def wants_press(self, wanted_open: bool, opening: float | None, now_s: float) -> bool:
        """Whether the gripper's button is to be pressed. opening: what the gripper was last sent, None: nothing yet."""
        is_open = opening is None or opening > 0.5
        if not self.drives or wanted_open == is_open or now_s - self._gripper_s < GRIPPER_S:
            return False
        self._gripper_s = now_s
        return True

    def _held(self, since_s: float) -> set[str]:
        pressed = PRESS_S <= since_s < 2 * PRESS_S  # after a moment with nothing down, or it would be no press
        if self.drives:
            return {"dead_man"}
        names = {Step.ASKING: "record_start", Step.MARKING: "record_failure", Step.ENDING: "record_stop"}
        return {names[self.step]} if pressed and self.step in names else set()

    def _go(self, step: Step, now_s: float) -> None:
        self.step, self.began_s = step, now_s

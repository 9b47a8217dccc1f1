"""The operator's terminal, a real pseudo-terminal: what is shown, which keys end a run, what a wrong answer does."""

from __future__ import annotations

import io
import os
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest
from fake_player import made_up
from rich.console import Console

from sim_bridges.evaluation.trials import Trial
from sim_bridges.real.benchmark import RealTrial
from sim_bridges.real.session import Choice, Ending, Judgement, Progress, Verdict
from sim_bridges.real.terminal import TerminalOperator
from vla_policy.errors import ConfigError, VlaError

TRIAL = RealTrial("open_drawer", "simple", 0, "open the [red] drawer", ("The drawer is shut.", "Nothing else."),
                  "It is open.", 20.0)  # fmt: skip
EPISODE = made_up(Trial("open_drawer", 0), success=False).episodes[0]


class Desk:
    """A keyboard that is typed on, an operator at it, and the screen."""

    def __init__(self, fingers: int, keyboard: TextIO) -> None:
        self.fingers, self.keyboard = fingers, keyboard
        self.screen = io.StringIO()
        self.operator = TerminalOperator(Console(file=self.screen, width=100), keyboard)

    def type(self, text: str) -> None:
        os.write(self.fingers, text.encode())

    @property
    def shown(self) -> str:
        return self.screen.getvalue()


@pytest.fixture
def desk() -> Iterator[Desk]:
    fingers, keys = os.openpty()
    with os.fdopen(keys) as keyboard, os.fdopen(fingers, "w"):
        yield Desk(fingers, keyboard)


def prepared(desk: Desk, typed: str) -> Choice:
    desk.type(typed)
    return desk.operator.prepare(TRIAL, 3, 93)


def judged(desk: Desk, typed: str) -> Judgement:
    desk.type(typed)
    return desk.operator.judge(TRIAL, EPISODE, Verdict.REPEAT)


@pytest.mark.parametrize(
    ("typed", "choice"),
    [("\n", Choice.START), ("s\n", Choice.SKIP), ("R\n", Choice.AGAIN), (" q \n", Choice.QUIT), ("\x04", Choice.QUIT)],
)
def test_an_answer_chooses(desk: Desk, typed: str, choice: Choice) -> None:
    assert prepared(desk, typed) is choice


def test_what_to_set_up_is_shown_and_a_wrong_answer_asks_again(desk: Desk) -> None:
    assert prepared(desk, "go\n\n") is Choice.START
    assert "3 of 93: open_drawer, simple" in desk.shown and "'open the [red] drawer', for 20 s at most" in desk.shown
    for text in ("The drawer is shut.", "Nothing else.", "It is open.", "got 'go', expected one of these"):
        assert text in desk.shown


@pytest.mark.parametrize(
    ("typed", "judgement"),
    [
        ("s\n", Judgement(Verdict.SUCCESS)),
        ("F it slipped [twice]\n", Judgement(Verdict.FAILURE, "it slipped [twice]")),
        ("r\n", Judgement(Verdict.REPEAT)),
        ("\n", Judgement(Verdict.REPEAT)),
        ("what\nf\n", Judgement(Verdict.FAILURE)),
    ],
)
def test_a_verdict_and_a_remark(desk: Desk, typed: str, judgement: Judgement) -> None:
    assert judged(desk, typed) == judgement
    assert "time_limit" in desk.shown and "It is open." in desk.shown


def test_a_closed_terminal_is_no_verdict(desk: Desk) -> None:
    with pytest.raises(VlaError, match="the terminal was closed"):
        judged(desk, "\x04")


def test_a_reset_is_asked_for(desk: Desk) -> None:
    desk.type("\n")
    assert desk.operator.reset("the tool left the workspace")
    desk.type("n\n")
    assert not desk.operator.reset("the tool left the workspace")
    desk.type("\x04")
    assert not desk.operator.reset("the tool left the workspace")
    assert "holds the robot: the tool left the workspace" in desk.shown


@pytest.mark.parametrize(("key", "ending"), [("s", Ending.SUCCESS), ("F", Ending.FAILURE), (" ", Ending.STOP)])
def test_a_key_ends_a_run_at_once(desk: Desk, key: str, ending: Ending) -> None:
    asked: list[Ending] = []
    desk_settings = termios.tcgetattr(desk.keyboard)
    threading.Timer(0.1, desk.type, ["?" + key + "s"]).start()  # neither other keys nor later ones matter
    assert desk.operator.follow(running(lambda: bool(asked)), asked.append) is ending
    assert asked == [ending]
    assert termios.tcgetattr(desk.keyboard) == desk_settings


def test_a_run_may_end_by_itself_and_what_was_typed_meanwhile_answers_nothing(desk: Desk) -> None:
    started_s = time.monotonic()

    def over() -> bool:
        if time.monotonic() - started_s > 0.2:
            desk.type("\n")  # too late: it must not count as an answer to the next question
            return True
        return False

    assert desk.operator.follow(running(over), lambda ending: None) is None
    assert judged(desk, "f\n") == Judgement(Verdict.FAILURE)


def running(over: Callable[[], bool]) -> Iterator[Progress]:
    end_s = time.monotonic() + 20.0
    while not over() and time.monotonic() < end_s:
        yield Progress(1.0, "running", "guard passes")
        time.sleep(0.02)
    yield Progress(1.1, "running", "guard passes")


def test_no_terminal_is_refused() -> None:
    with open(os.devnull) as nothing, pytest.raises(ConfigError, match="got no terminal on standard input"):
        TerminalOperator(Console(file=io.StringIO()), nothing)

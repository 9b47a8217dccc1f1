"""The line of a run: one on a terminal, plain ones elsewhere, nothing from other processes, a clean end."""

import io

import pytest
from rich.console import Console
from watched import step

from vla_training.watch import progress
from vla_training.watch.progress import ProgressLine


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def lines_of(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


def run(line: ProgressLine, clock: Clock, seconds: int) -> None:
    """A step a second."""
    for number in range(1, seconds + 1):
        clock.now_s += 1.0
        line.step(step(number, steps=200))


def test_where_there_is_no_terminal_a_plain_line_comes_every_30_s(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=60)
    line = ProgressLine(console, line_every_s=30.0)
    run(line, clock, 100)
    line.close()
    lines = lines_of(console)
    assert [text.split(" · ")[0] for text in lines] == [f"{n / 2:.1f} % step {n}" for n in (30, 60, 90)]
    expected = ("pose 0.5", "loss 1", "lr 1.0e-03", "16 samples/s", "wait 25 %", "GiB", "1:50 left")
    assert all(word in lines[-1] for word in expected), lines[-1]
    assert "?" in lines[0], "nothing is known of the pace before the second line"
    assert not any("\x1b" in text for text in lines)


def test_a_terminal_shows_one_line_and_gets_it_back_whole(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    line = ProgressLine(console)
    run(line, clock, 5)
    line.say("step 5: held out")
    line.close()
    line.close()
    line.say("bundle in outputs/run/bundle")
    text = console.file.getvalue()
    assert "step 5" in text and "step 5: held out" in text
    assert text.endswith("bundle in outputs/run/bundle\n")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is left hidden"


def test_the_cursor_is_there_while_the_line_is_shown(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    line = ProgressLine(console)
    text = console.file.getvalue()
    line.close()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "a process that is killed would leave it hidden"


def test_a_quiet_console_says_nothing(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, quiet=True)
    line = ProgressLine(console)
    run(line, clock, 100)
    line.say("a line")
    line.close()
    assert console.file.getvalue() == ""


def test_the_remaining_time_follows_the_recent_pace(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    line = ProgressLine(console, line_every_s=10.0)
    for number in range(1, 101):
        clock.now_s += 1.0 if number <= 50 else 10.0  # the second half of a run is ten times slower
        line.step(step(number, steps=200))
    assert lines_of(console)[-1].endswith("16:40 left")  # 100 steps of 10 s, not of the mean of both halves

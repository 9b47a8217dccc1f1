"""A terminal in, an operator out: shows what to set up, reads the answers and, while the robot runs, single keys."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sim_bridges.real.benchmark import RealTrial
from sim_bridges.real.session import Choice, Ending, Judgement, Progress, Verdict
from sim_bridges.results import EpisodeResult
from vla_policy.errors import ConfigError, VlaError

CHOICES = {"": Choice.START, "s": Choice.SKIP, "r": Choice.AGAIN, "q": Choice.QUIT}
ENDINGS = {"s": Ending.SUCCESS, "f": Ending.FAILURE, " ": Ending.STOP}
VERDICTS = {"s": Verdict.SUCCESS, "f": Verdict.FAILURE, "r": Verdict.REPEAT}

Answer = TypeVar("Answer")


class TerminalOperator:
    """Asks in `console` and reads from `keyboard`. Raises: ConfigError where that is no terminal."""

    def __init__(self, console: Console, keyboard: TextIO = sys.stdin) -> None:
        if not keyboard.isatty():
            raise ConfigError(
                "got no terminal on standard input, expected one with a person at it; start it by hand in a shell"
            )
        self._console, self._keyboard = console, keyboard

    def prepare(self, trial: RealTrial, number: int, total: int) -> Choice:
        """Shown what to set up; the answer is the choice."""
        self._console.print(Panel(_card(trial), title=f"{number} of {total}: {trial.task}, {trial.setting}"))
        question = "Enter: start   s: skip   r: repeat the one before   q: quit"
        return self._choose(question, lambda line: CHOICES[line.lower()], Choice.QUIT)

    def follow(self, states: Iterator[Progress], end: Callable[[Ending], None]) -> Ending | None:
        """Watch a run; a key ends it."""
        asked: Ending | None = None
        with self._single_keys(), Live(console=self._console, auto_refresh=False, transient=True) as live:
            for state in states:
                live.update(_line(state, asked), refresh=True)
                key = ENDINGS.get(self._key())
                if key is not None and asked is None:
                    asked = key
                    end(key)
        return asked

    def judge(self, trial: RealTrial, episode: EpisodeResult, suggested: Verdict) -> Judgement:
        """Ask what a run was."""
        self._console.print(Text.assemble((episode.reason.lower(), "bold"), f": {episode.message}"))
        self._console.print(Text.assemble(("success", "bold"), f" means: {trial.success}"))
        question = f"s: success   f: failure   r: repeat   a remark may follow   Enter: {suggested}"
        return self._choose(question, lambda line: _judgement(line, suggested), None)

    def reset(self, why: str) -> bool:
        """Ask whether to reset the guard."""
        self._console.print(Text.assemble(("The guard holds the robot: ", "bold red"), why))
        question = "Make it safe, then Enter: reset the guard   n: leave it as it is"
        return self._choose(question, lambda line: {"": True, "n": False}[line.lower()], False)

    def tell(self, words: str) -> None:
        """Say something."""
        self._console.print(Text(words, "yellow"))

    def _choose(self, question: str, read: Callable[[str], Answer], at_end: Answer | None) -> Answer:
        """Ask until `read` knows the answer. at_end: the answer where the terminal was closed; None is an error."""
        while True:
            self._console.print(Text(f"{question} > ", "bold"), end="")
            line = self._keyboard.readline()
            if not line:
                if at_end is None:
                    raise VlaError("the terminal was closed")
                return at_end
            try:
                return read(line.strip())
            except KeyError as unknown:
                self._console.print(Text(f"got {unknown}, expected one of these:"))

    def _key(self) -> str:
        """The key that was pressed, or nothing."""
        ready, _, _ = select.select([self._keyboard], [], [], 0)
        return os.read(self._keyboard.fileno(), 1).decode(errors="replace").lower() if ready else ""

    @contextmanager
    def _single_keys(self) -> Iterator[None]:
        """Keys without Enter and without echo; Ctrl-C stays what it is."""
        before = termios.tcgetattr(self._keyboard)
        tty.setcbreak(self._keyboard)
        try:
            yield
        finally:
            termios.tcsetattr(self._keyboard, termios.TCSAFLUSH, before)


def _card(trial: RealTrial) -> Table:
    card = Table.grid(padding=(0, 2))
    rows = [("set up", trial.setup[0]), *(("", step) for step in trial.setup[1:])]
    rows += [("success", trial.success), ("says", f"'{trial.instruction}', for {trial.time_limit_s:g} s at most")]
    for name, text in rows:
        card.add_row(Text(name, "bold"), Text(text))
    return card


def _line(state: Progress, asked: Ending | None) -> Text:
    keys = f"ending: {asked}" if asked else "s: success  f: failure  space: stop"
    clock, words = f"{state.elapsed_s:6.1f} s  ", f"{state.status}  |  {state.safety}  |  "
    return Text.assemble((clock, "bold"), words, (keys, "cyan"))


def _judgement(line: str, suggested: Verdict) -> Judgement:
    """`f it slipped` -> a failure with a remark. Raises: KeyError for another letter."""
    letter, _, remark = line.partition(" ")
    return Judgement(suggested if not letter else VERDICTS[letter.lower()], remark.strip())

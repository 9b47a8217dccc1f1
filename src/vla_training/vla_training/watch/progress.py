"""Step reports in, one line on the terminal out; plain lines now and then where the output is no terminal."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from vla_training.training.report import StepReport
from vla_training.watch.memory import memory_gib

REFRESH_S = 0.5
REMEMBERED = 120  # refreshes that the remaining time is estimated from: a minute


class ProgressLine:
    """Shows a run while it runs. `say` prints a line above; `close` leaves the terminal as it was."""

    def __init__(self, console: Console, line_every_s: float = 30.0) -> None:
        self._console = console
        self._live = console.is_terminal and not console.quiet
        self._every_s = REFRESH_S if self._live else line_every_s
        self._recent: deque[tuple[float, float]] = deque(maxlen=REMEMBERED if self._live else 10)
        self._shown_s = time.monotonic()
        self._samples, self._seconds, self._waited_s = 0, 0.0, 0.0
        text = Column(no_wrap=True, overflow="ellipsis")
        self._bar = Progress(
            BarColumn(bar_width=16),
            TextColumn("{task.description}", table_column=text, markup=False),
            console=console,
            refresh_per_second=2,
            disable=not self._live,
        )
        self._task = self._bar.add_task("the first step is under way", total=1.0)
        self._bar.start()
        if self._live:
            console.show_cursor(True)  # a process that is ended at once could not bring it back

    def step(self, report: StepReport) -> None:
        """Take one step in; the line changes at most twice a second."""
        self._samples += report.samples
        self._seconds += report.seconds
        self._waited_s += report.seconds * report.wait_share
        now_s = time.monotonic()
        if now_s - self._shown_s < self._every_s:
            return
        self._recent.append((now_s, report.share_done))
        line = self._line(report)
        if self._live:
            self._bar.update(self._task, completed=report.share_done, description=line)
        else:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._shown_s = now_s
        self._samples, self._seconds, self._waited_s = 0, 0.0, 0.0

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the display; may be called twice."""
        self._bar.stop()

    def _line(self, report: StepReport) -> str:
        seconds = max(self._seconds, 1e-9)
        used = memory_gib()
        parts = [
            f"{100 * report.share_done:.1f} % step {report.step}",
            *(f"{name} {value:.4g}" for name, value in report.losses.items()),
            f"lr {report.learning_rate:.1e}",
            f"{self._samples / seconds:.4g} samples/s",
            f"wait {100 * self._waited_s / seconds:.0f} %",
            f"RAM {used['rss']:.1f} GiB",
            *([f"GPU {used['gpu']:.1f} GiB"] if "gpu" in used else []),
            f"{_clock(self._remaining_s())} left",
        ]
        return " · ".join(parts)

    def _remaining_s(self) -> float | None:
        """By the pace of the last minute, because the stages of a run differ in theirs."""
        (first_s, first), (last_s, last) = self._recent[0], self._recent[-1]
        if last <= first:
            return None
        return (1.0 - last) * (last_s - first_s) / (last - first)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

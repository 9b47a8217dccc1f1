"""Reports of a training run in; a line, boards, measurements and a report out: the observer of a person."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vla_policy.errors import VlaError
from vla_policy.model.vla import VLAModel
from vla_training.training.report import RunEnd, StepReport, ValidationReport
from vla_training.watch.board import TensorBoard, WandbBoard
from vla_training.watch.closed_loop import ClosedLoopRunner, check_closed_loop
from vla_training.watch.config import WatchConfig
from vla_training.watch.facts import write_json
from vla_training.watch.measured import ClosedLoopResult, OpenLoopResult, save_open_loop
from vla_training.watch.points import Averager, Point, PointFile, PointObserver
from vla_training.watch.progress import ProgressLine
from vla_training.watch.report import CLOSED_LOOP, FACTS, OPEN_LOOP, POINTS, folder_of, step_of, write_report

LEFT_OUT = "it is left out from here on, the training goes on"
MeasureOpenLoop = Callable[[VLAModel], OpenLoopResult]


class Watcher:
    """Shows a run and keeps what was seen. All of it stays out of the training's random draws and weights.

    Calls come in this order: `step` and, now and then, `validation` and `exported`; then `end`; `close` always, also
    after an error. What fails while it watches is said, and does not end the training.
    """

    def __init__(
        self,
        config: WatchConfig,
        output: Path,
        facts: Mapping[str, Any],
        console: Console,
        resumed_step: int = 0,
        open_loop: MeasureOpenLoop | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """facts: what the report tells of the run: `config`, `data`, `command`, `machine`. open_loop: measures the
        model with averaged weights, None where no episode is held out. stopped: whether a person wants the run to end.

        Raises: ConfigError for a board or simulator that is not there.
        """
        self._output, self._folder, self._stopped = output, folder_of(output), stopped
        self._open_loop = open_loop if config.open_loop.episodes else None
        self._facts = dict(facts)
        if config.closed_loop:
            check_closed_loop(config.closed_loop)
            self._facts["sim"] = config.closed_loop.sim
        self._observers: list[PointObserver] = []
        if config.wandb:
            self._observers.append(WandbBoard(config.wandb, output, facts, resumed_step))
        self._observers.append(PointFile(self._folder / POINTS, resumed_step))
        self._observers.append(TensorBoard(output / "tensorboard", resumed_step))
        _forget(self._folder, resumed_step)
        write_json(self._folder / FACTS, self._facts)
        self._averager = Averager(config.every)
        self._minutes = 0.0
        self._closed_loop: ClosedLoopRunner | None = None
        self._line = ProgressLine(console, config.line_every_s)
        if config.closed_loop:
            self._closed_loop = ClosedLoopRunner(
                config.closed_loop, self._folder / CLOSED_LOOP, self._line.say, resumed_step
            )

    def step(self, report: StepReport) -> None:
        """Take one step in."""
        with self._timed():
            self._step(report)

    def validation(self, report: ValidationReport, model: VLAModel | None) -> dict[str, float]:
        """Show a validation, and measure the open loop where `model`, with averaged weights, is given.

        Returns: the measured values by name.
        """
        with self._timed():
            return self._validation(report, model)

    def exported(self, step: int, bundle: Path) -> None:
        """A bundle was written: play it in the simulator when it is time."""
        if self._closed_loop is not None:
            self._closed_loop.offer(step, bundle)

    def end(self, end: RunEnd) -> None:
        """The run is over: wait for what is still measured, write the report, say what lies where."""
        self._add(self._averager.take(end.step, end.minutes))
        if self._closed_loop is not None:
            self._played(end.step, self._closed_loop.finish(self._stopped))
            if end.reason != "stopped":
                self._closed_loop.offer(end.step, Path(end.bundle), last=True)
                self._played(end.step, self._closed_loop.finish(self._stopped))
        self._facts["end"] = {"step": end.step, "minutes": end.minutes, "reason": end.reason}
        report = self._write_report()
        self.close()
        best = f", the best in {end.best_bundle}" if end.best_bundle else ""
        self._line.say(
            f"{end.reason.replace('_', ' ')} after {end.step} steps, {end.minutes:.1f} minutes: "
            f"bundle in {end.bundle}{best}, {report}"
        )

    def close(self) -> None:
        """End the display and the processes beside the training; may be called twice."""
        self._line.close()
        if self._closed_loop is not None:
            self._closed_loop.close()
        while self._observers:
            observer = self._observers.pop()
            try:
                observer.close()
            except (OSError, VlaError) as problem:
                self._line.say(f"{type(observer).__name__}: {problem}")

    def _step(self, report: StepReport) -> None:
        self._minutes = report.minutes
        self._line.step(report)
        point = self._averager.add(report)
        if point is None:
            return
        self._add(point)
        if self._closed_loop is not None:
            self._played(report.step, self._closed_loop.poll())

    def _validation(self, report: ValidationReport, model: VLAModel | None) -> dict[str, float]:
        values = {f"validation/{name}": value for name, value in report.losses.items()}
        details: dict[str, float] = {}
        words = [f"{name} {value:.4g}" for name, value in report.losses.items()]
        if self._open_loop is not None and model is not None:
            details = self._measure(model)
            if "open_loop/relative_error" in details:
                words.append(f"action error {100 * details['open_loop/relative_error']:.0f} % of the spread")
        self._line.say(f"step {report.step}: held out: {'  '.join(words)}{'  (best)' if report.improved else ''}")
        self._add(Point(report.step, self._minutes, values | details))
        return details

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Watching tells what it costs, too."""
        begun_s = time.perf_counter()
        yield
        self._averager.spent(time.perf_counter() - begun_s)

    def _add(self, point: Point) -> None:
        for observer in tuple(self._observers) if point.values else ():
            try:
                observer.add(point)
            except (OSError, VlaError) as problem:
                self._observers.remove(observer)
                self._line.say(f"{type(observer).__name__}: {problem}; {LEFT_OUT}")

    def _write_report(self) -> str:
        """Where the report lies, or why there is none: a bundle is worth more than its report."""
        try:
            write_json(self._folder / FACTS, self._facts)
            return f"report in {write_report(self._output)}"
        except (OSError, VlaError) as problem:
            return f"no report: {problem}"

    def _measure(self, model: VLAModel) -> dict[str, float]:
        try:
            result = self._open_loop(model)
            save_open_loop(self._folder / OPEN_LOOP, result)
        except (OSError, VlaError, torch.OutOfMemoryError) as problem:
            self._line.say(f"open loop: {problem}; {LEFT_OUT}")
            self._open_loop = None
            return {}
        return result.scalars()

    def _played(self, step: int, result: ClosedLoopResult | None) -> None:
        """Note a result. A curve's steps must not fall, so the boards get it at the step at which it came."""
        if result is None:
            return
        low, high = result.interval_95
        self._line.say(
            f"step {result.step}: {100 * result.success_rate:.0f} % success in {result.sim} "
            f"({100 * low:.0f} to {100 * high:.0f} %, {result.episodes} episodes)"
        )
        self._add(Point(step, self._minutes, result.scalars()))


def _forget(folder: Path, resumed_step: int) -> None:
    """A new run in an old folder shows nothing of the old one, a resumed one nothing of the steps it does again."""
    if not resumed_step:
        (folder / OPEN_LOOP).unlink(missing_ok=True)
    for file in (folder / CLOSED_LOOP).glob("step_*"):
        if step_of(file) > resumed_step:
            file.unlink()

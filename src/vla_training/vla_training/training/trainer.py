"""Steps, windows and a config in, a trained model out: the loop, its validation, its resumable state.

The loop holds no random state: what happens in step n, noise and dropout too, depends on the seed, n and the
weights. With the same budget of steps a resumed run therefore equals an uninterrupted one.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_policy.errors import VlaError
from vla_training.config import Budget, Stage, TrainingConfig
from vla_training.training import state
from vla_training.training.feed import Feed
from vla_training.training.machine import check_batches
from vla_training.training.optimization import learning_rate_at, trained
from vla_training.training.report import StepReport, ValidationReport
from vla_training.training.signals import StopRequest
from vla_training.training.stepper import Parts, Stepper

DEEPSPEED = "deepspeed"


@dataclass(slots=True)
class Progress:
    """How far a run is: what, beside tensors, it needs to go on. minutes: training time over all resumes.

    best: lowest validation loss. stale: validations since then. validation: losses of the last one. averages: updates
    of the averaged weights.
    """

    step: int = 0
    minutes: float = 0.0
    best: float | None = None
    stale: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    averages: int = 0


class Trainer:
    """Runs the loop. `run` yields a report per step and per validation; `save` and `resume` break it off and go on."""

    def __init__(self, stepper: Stepper, feed: Feed, config: TrainingConfig, budget: Budget,
                 identity: Mapping[str, Any]) -> None:
        """identity: what a run that goes on must share with this one, see `state.check_same_run`."""
        check_batches(budget.stages, config, stepper.accelerator.num_processes)
        self.stepper, self._feed, self._config, self._budget = stepper, feed, config, budget
        self._accelerator = stepper.accelerator
        self._identity = identity
        self.progress = Progress()
        self.stop = StopRequest()
        self.end_reason = "finished"

    def share_done(self, step: int | None = None) -> float:
        """Share of the budget that is used: of the steps, or of the minutes where that is more."""
        share = (self.progress.step if step is None else step) / self._budget.steps
        if self._config.max_minutes:
            share = max(share, self.progress.minutes / self._config.max_minutes)
        return min(1.0, share)

    @property
    def validates(self) -> bool:
        """Whether a validation belongs to the newest step; `run` reports it right after the step."""
        return self._feed.validation is not None and self.progress.step % self._config.validate_every == 0

    def run(self) -> Iterator[StepReport | ValidationReport]:
        """Train until the budget is used up, a process is asked to stop, or validation does not improve any more."""
        patience, feed = self._config.patience, self._feed.steps(self.progress.step, self._stage)
        while self.share_done() < 1.0:
            measured, stop = self._step(feed)
            yield StepReport(step=self.progress.step, steps=self._budget.steps, share_done=self.share_done(),
                             minutes=self.progress.minutes, **measured)
            if self.validates:
                yield self._validate()
            if stop or (patience and self.progress.stale >= patience):
                self.end_reason = "stopped" if stop else "no_improvement"
                return

    def save(self, folder: Path) -> None:
        """Write the state of the run, atomically; all processes must call it. Raises: VlaError."""
        partial, main = state.partial_of(folder), self._accelerator.is_main_process
        tensors, scaler = self.tensors(), self._accelerator.scaler
        progress = asdict(self.progress) | {"scaler": scaler.state_dict() if scaler else None,
                                            "run": dict(self._identity)}
        try:
            self.stepper.together(lambda: state.check_space(folder, state.whole_bytes(tensors), "the state of the run"))
            if main:
                state.make_empty(partial)
            self._accelerator.wait_for_everyone()
            self.stepper.together(lambda: state.write_tensors(partial, tensors, self._accelerator.num_processes == 1))
            if self.stepper.deepspeed:  # its optimizer's state is its own to write
                self.stepper.together(lambda: self._accelerator.save_state(str(partial / DEEPSPEED)))
            self.stepper.together(lambda: state.commit(folder, progress) if main else None)
        except VlaError:  # of this process, or what `together` says where another one failed
            if main:
                shutil.rmtree(partial, ignore_errors=True)
            raise

    def resume(self, folder: Path) -> None:
        """Go on from what `save` wrote.

        Raises: ConfigError where there is nothing or another run, StateError where it does not fit.
        """
        folder, progress = state.find(folder)
        state.check_same_run(folder, self._identity, progress.pop("run", {}))
        scaler = progress.pop("scaler")
        if scaler and self._accelerator.scaler:
            self._accelerator.scaler.load_state_dict(scaler)
        self.progress = Progress(**progress)
        if self.stepper.average:
            self.stepper.average.steps = self.progress.averages
        state.read_tensors(folder, self.tensors(), self._accelerator.num_processes == 1)
        if self.stepper.deepspeed:
            self._accelerator.load_state(str(folder / DEEPSPEED))

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes, in place."""
        weights = trained(self.stepper.model)
        groups = {"weights": weights,
                  "buffers": dict(self.stepper.model.named_buffers()),
                  "averages": self.stepper.average.weights if self.stepper.average else {},
                  "optimizer": {} if self.stepper.deepspeed else
                  state.optimizer_tensors(weights, self.stepper.optimizer)}
        return {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}

    def _stage(self, step: int) -> Stage:
        share = self.share_done(step)
        return next((stage for stage in self._budget.stages if share < stage.until), self._budget.stages[-1])

    def _step(self, feed: Iterator) -> tuple[dict[str, object], bool]:
        """One step: what it gave, for StepReport, and whether a process was asked to stop."""
        started = time.monotonic()
        config, stage, share = self._config, self._stage(self.progress.step), self.share_done()
        micro_batches = next(feed)
        waited_s = time.monotonic() - started
        _seed(config.seed, self.progress.step, self._accelerator.process_index)
        rate = learning_rate_at(max(share, 1.0 / self._budget.steps), config.learning_rate, config.warmup_ratio,
                                config.final_learning_rate_ratio, config.schedule)
        sums, counts, norm = self.stepper.optimize(micro_batches, rate)
        self.progress.step += 1
        self.progress.averages = self.stepper.average.steps if self.stepper.average else 0
        sums, stop, seconds = self._agree(sums, started)
        self.progress.minutes += seconds / 60.0
        return {"losses": self.stepper.means(sums, counts), "learning_rate": rate, "gradient_norm": norm,
                "samples": stage.batch_size, "frames": stage.batch_size * stage.window, "seconds": seconds,
                "wait_share": waited_s / seconds}, stop

    def _agree(self, sums: Parts, started: float) -> tuple[Parts, bool, float]:
        """What all processes must see alike: the sums of all, whether one was asked to stop, the first's seconds."""
        main = self._accelerator.is_main_process
        own = {"stop": torch.tensor(float(bool(self.stop))),
               "seconds": torch.tensor((time.monotonic() - started) if main else 0.0, dtype=torch.float64)}
        shared = self.stepper.reduced(sums | own)
        stop, seconds = shared.pop("stop"), shared.pop("seconds")
        return shared, bool(stop), float(seconds)

    def _validate(self) -> ValidationReport:
        """Losses on fixed windows of the held-out episodes, with fixed noise."""
        _seed(self._config.seed, 0, self._accelerator.process_index)
        losses = self.stepper.evaluate(self._feed.held_out())
        progress = self.progress
        improved = math.isfinite(losses["loss"]) and (progress.best is None or losses["loss"] < progress.best)
        progress.validation = dict(losses)
        progress.best = losses["loss"] if improved else progress.best
        progress.stale = 0 if improved else progress.stale + 1
        best = losses["loss"] if progress.best is None else progress.best
        return ValidationReport(progress.step, losses, best, improved)


def _seed(*numbers: int) -> None:
    """What torch draws from here on, noise and dropout, depends on `numbers` alone."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

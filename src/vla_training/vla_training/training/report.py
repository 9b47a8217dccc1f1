"""What one optimizer step gives, for whoever watches a run: a record, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step of all processes together; each makes the same report, but for the wait.

    step: steps done, this one among them, over all resumes. steps: the budget. share_done: 0..1 of the budget of steps
    or minutes, whichever is used further. minutes: training time over all resumes.
    losses: mean of every part over all processes and micro batches (`pose`, `bins`, `gripper`, `place`, `scene`), and
    `loss`, their weighed sum. learning_rate: of this step. gradient_norm: before clipping.
    samples: windows used, by all processes. frames: frames in them. seconds: the step took. wait_share: 0..1 of
    `seconds` spent waiting for data.
    """

    step: int
    steps: int
    share_done: float
    minutes: float
    losses: Mapping[str, float]
    learning_rate: float
    gradient_norm: float
    samples: int
    frames: int
    seconds: float
    wait_share: float

    @property
    def samples_per_s(self) -> float:
        """Windows a second, of all processes together."""
        return self.samples / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What the averaged weights do on held-out episodes.

    losses: as in StepReport. best: lowest `loss` so far, this one among them. improved: whether this one is it.
    """

    step: int
    losses: Mapping[str, float]
    best: float
    improved: bool


@dataclass(frozen=True, slots=True)
class RunEnd:
    """Why and where a run ended.

    reason: finished, stopped (by a signal) or no_improvement. bundle: the last one written.
    """

    step: int
    minutes: float
    reason: str
    bundle: str
    best_bundle: str | None

"""Numbers in, made-up reports and measurements of a training run out, for the tests beside this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from vla_policy.types import ActionChunk, Observation
from vla_training.training.report import StepReport, ValidationReport
from vla_training.watch.measured import DrawnEpisode, OpenLoopResult
from vla_training.watch.open_loop import Recording

NAMES, UNITS = ("x", "y", "gripper"), ("m", "rad", "fraction")


def step(number: int, steps: int = 100, loss: float = 1.0, **changes: object) -> StepReport:
    """A step in which everything is as expected."""
    values = {"step": number, "steps": steps, "share_done": number / steps, "minutes": 0.1 * number,
              "losses": {"pose": loss / 2, "loss": loss}, "learning_rate": 1e-3, "gradient_norm": 2.0, "samples": 8,
              "frames": 64, "seconds": 0.5, "wait_share": 0.25}
    return StepReport(**(values | changes))


def validated(number: int, loss: float) -> ValidationReport:
    """A validation that is the best so far."""
    return ValidationReport(number, {"pose": loss / 2, "loss": loss}, loss, True)


def open_loop_result() -> OpenLoopResult:
    """Errors of a chunk of four rows, two of them executed, and one episode to look at."""
    rng = np.random.default_rng(0)
    recorded = rng.normal(size=(6, 3))
    chunks = rng.normal(size=(3, 4, 3))
    starts = np.arange(0, 6, 2)
    drawn = DrawnEpisode("set, episode 5", "open the drawer", 0.05, recorded, recorded + 0.1, starts, chunks)
    error = np.arange(12.0).reshape(4, 3) / 100
    return OpenLoopResult(NAMES, UNITS, error, np.array([0.5, 0.25, 0.0]), 2, 1, 3, (drawn,))


@dataclass
class Replayer:
    """A policy that knows the recording, and says at step s the rows from s * execute_rows + `late` on."""

    actions_NA: np.ndarray
    late: int = 0
    rows: int = 4
    execute_rows: int = 2
    instructions: list[str] = field(default_factory=list)
    _step: int = 0

    def reset(self, instruction: str) -> None:
        self.instructions.append(instruction)
        self._step = 0

    def step(self, observation: Observation) -> ActionChunk:
        first = self._step * self.execute_rows + self.late
        padded = np.vstack([self.actions_NA, np.zeros((self.rows + self.late, self.actions_NA.shape[1]))])
        self._step += 1
        return ActionChunk(observation.stamp_ns, 1, padded[first : first + self.rows], self.execute_rows, 1)


def recording(actions_NA: np.ndarray, execute_rows: int = 2, key: str = "episode 0") -> Recording:
    """An episode without cameras, an observation every `execute_rows` rows."""

    def observations() -> Iterator[Observation]:
        for number in range(-(-len(actions_NA) // execute_rows)):
            yield Observation(number, {}, np.zeros(1), None)

    return Recording(key, "open the drawer", observations, actions_NA)


def always(policy: Replayer) -> Callable[[Observation], Replayer]:
    """The same policy for every episode."""
    return lambda first: policy

"""The `watch` part of a training file in, a WatchConfig out: what a person sees of a run, and how often."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla_policy.strict import StrictModel

Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Wandb(StrictModel):
    """A Weights & Biases run. offline: written to OUTPUT/wandb, for `wandb sync` later."""

    project: Annotated[str, Field(min_length=1)]
    name: str | None = None
    mode: Literal["online", "offline"] = "online"


class OpenLoop(StrictModel):
    """The policy steps over recorded observations of held-out episodes, whenever a bundle is written.

    episodes: how many of them, at most; 0: none. drawn: how many are drawn in the report.
    """

    episodes: Annotated[int, Field(ge=0)] = 8
    drawn: Annotated[int, Field(ge=0)] = 3


class ClosedLoop(StrictModel):
    """The policy drives a simulator, in a process of its own, while the training goes on.

    sim: a simulator of sim_bridges. tasks: of that simulator, all where none are named. episodes: in all, going round
    the tasks. every: steps between two measurements; the bundle measured is the newest one then.
    time_limit_s: of simulated time, for an episode. patience_s: how long the end of a run waits for the last one.
    device: where the policy runs; `cpu` leaves the GPU to the training.
    """

    sim: str
    tasks: tuple[str, ...] = ()
    episodes: Count = 20
    every: Count
    time_limit_s: Seconds = 8.0
    patience_s: Seconds = 600.0
    seed: Annotated[int, Field(ge=0)] = 2_000_000
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _every_task_is_played(self) -> ClosedLoop:
        if self.episodes < len(self.tasks):
            raise ValueError(
                f"episodes is {self.episodes} for {len(self.tasks)} tasks; expected at least one episode a task"
            )
        return self


class WatchConfig(StrictModel):
    """What is shown and measured beside the training. The losses of a run are the same whatever stands here.

    every: steps that one point of a curve is the mean of. line_every_s: between two lines where the output is no
    terminal. wandb, closed_loop: none where they are left out; TensorBoard is always written, to OUTPUT/tensorboard.
    """

    every: Count = 20
    line_every_s: Seconds = 30.0
    wandb: Wandb | None = None
    open_loop: OpenLoop = OpenLoop()
    closed_loop: ClosedLoop | None = None

"""A training YAML in, a ModelConfig and a TrainingConfig out; unknown keys are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile, load_model_file
from vla_policy.strict import StrictModel, parse

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]


class Stage(StrictModel):
    """A part of the run: until `until` of its budget, windows of `window` frames in batches of `batch_size`
    windows.
    """

    until: Annotated[float, Field(gt=0, le=1)]
    window: Count
    batch_size: Count


class Source(StrictModel):
    """A LeRobot v3 folder, and the tasks of it to use (all where none are named)."""

    path: str
    tasks: tuple[str, ...] = ()


class Losses(StrictModel):
    """How the losses are weighed. pose: huber (as RoboVLMs' code) or mse (as its paper), on the six pose
    columns.
    """

    pose: Literal["huber", "mse"] = "huber"
    pose_weight: Positive = 1.0
    gripper_weight: Annotated[float, Field(ge=0)] = 0.01
    grounding_weight: Annotated[float, Field(ge=0)] = 0.0


class Augmentation(StrictModel):
    """Drawn once per window and camera, so that the frames of a window stay consistent."""

    shift_px: Annotated[int, Field(ge=0, le=16)] = 2
    brightness: Share = 0.1


class TrainingConfig(StrictModel):
    """One training run.

    datasets: what is learnt from. Where the weights, tokenizer and normalisers come from: `start` is a policy
    bundle to fine-tune, `grounding` a folder written by `pretrain`; without either they are made new.
    scenes: folder written by `scenes`, for the grounding loss kept as a side task (`scene_batch_size` a step;
    0: none).
    steps, max_minutes: the budget; the learning rate follows whichever is used up further, the first to end
    ends the run. With `max_minutes` the schedule depends on the machine's speed; leave it out where a run
    must be repeatable bit by bit.
    stages: growing windows; the last must end at 1. Single frames are cheap and varied; windows teach the
    history.
    """

    datasets: Annotated[tuple[Source, ...], Field(min_length=1)]
    start: str | None = None
    grounding: str | None = None
    scenes: str | None = None
    scene_batch_size: Annotated[int, Field(ge=0)] = 0
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    steps: Count
    max_minutes: Positive | None = None
    learning_rate: Positive = 7e-4
    warmup_ratio: Share = 0.02
    final_learning_rate_ratio: Share = 0.02
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_clip: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    threads: Count = 2
    losses: Losses = Losses()
    augmentation: Augmentation = Augmentation()
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.04
    validate_every: Count = 500
    export_every: Count = 1000
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        ends = [stage.until for stage in self.stages]
        if ends != sorted(set(ends)) or ends[-1] != 1.0:
            raise ValueError(f"stages.until: got {ends}, expected growing shares of the budget ending at 1.0")
        if self.start and self.grounding:
            raise ValueError(
                f"start is {self.start!r} and grounding is {self.grounding!r}; a run starts from one of them"
            )
        if bool(self.scenes) != bool(self.scene_batch_size):
            raise ValueError(
                f"scenes is {self.scenes!r} and scene_batch_size is {self.scene_batch_size}; "
                "give both for the side task, or neither"
            )
        return self


def load_training_file(path: Path | str) -> tuple[ModelFile, TrainingConfig]:
    """Read config/training/<name>.yaml. Raises: ConfigError naming every mistake."""
    file = load_model_file(path)
    return file, parse(TrainingConfig, file.training, f"{path}: training", ConfigError)

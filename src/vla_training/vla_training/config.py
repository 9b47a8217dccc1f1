"""A training or model file in, a ModelFile and a TrainingConfig out; unknown keys are refused by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile, load_model_file
from vla_policy.model.heads.losses import LossWeights
from vla_policy.strict import StrictModel, parse
from vla_training.adapt.config import AdaptConfig
from vla_training.datasets.config import Augmentation, Source
from vla_training.watch.config import WatchConfig

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


@dataclass(frozen=True, slots=True)
class Budget:
    """How many steps a run takes, and with which windows."""

    steps: int
    stages: tuple[Stage, ...]


class TrainingConfig(StrictModel):
    """One training run.

    datasets: what is learnt from; a command line can name them instead. cache: `decoded` keeps every frame at the
    model's image size in a file beside the data, `none` decodes what a window needs. workers: processes that load
    beside each that trains. statistics: a file made by `stats` from these datasets; else they are computed; not
    with `start`, which has its own.
    start: a policy bundle whose weights, tokenizer and normalisers the run begins with; grounding: a folder written by
    `pretrain`; without either they are made new. new_head: of `start`, take all but the action head, which is the
    config's own and new.
    scenes: folder written by `scenes`, for the grounding loss kept as a side task (`scene_batch_size` a step;
    0: none).
    batch_size: windows of an optimizer step, of all processes together, each as long as the model's history. In its
    place, stages: growing windows; the last must end at 1. Single frames are cheap and varied; windows teach the
    history. accumulation_steps: the pieces that each process cuts its share of a batch into, to save memory; it
    changes no gradient.
    epochs: the budget; an epoch draws as many windows as there are frames to train on. In its place, steps.
    max_minutes: a further budget; the learning rate follows whichever is used up further, the first to end ends
    the run. With `max_minutes` the schedule depends on the machine's speed; leave it out where a run must be
    repeatable bit by bit. patience: validations without a better loss after which the run ends; none where left out.
    schedule: of the learning rate after its linear warm-up over `warmup_ratio` of the budget: a cosine down to
    `final_learning_rate_ratio` of it, or constant. ema_decay: of the averaged weights that are validated and
    exported; null: the newest weights are.
    precision: of the arithmetic; weights are float32 in all. parallel: how several processes share the model: `ddp`,
    each holds all of it, or `fsdp2`, each holds its share of the weights, gradients and optimizer state. deepspeed:
    a DeepSpeed JSON file (ZeRO 0, 1 or 2; its state holds DeepSpeed's own files), in place of `parallel`.
    """

    datasets: tuple[Source, ...] = ()
    cache: Literal["decoded", "none"] = "decoded"
    workers: Annotated[int, Field(ge=0)] = 0
    statistics: str | None = None
    start: str | None = None
    new_head: bool = False
    grounding: str | None = None
    scenes: str | None = None
    scene_batch_size: Annotated[int, Field(ge=0)] = 0
    batch_size: Count | None = None
    stages: tuple[Stage, ...] = ()
    accumulation_steps: Count = 1
    epochs: Count | None = None
    steps: Count | None = None
    max_minutes: Positive | None = None
    patience: Count | None = None
    learning_rate: Positive = 7e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_ratio: Share = 0.02
    final_learning_rate_ratio: Share = 0.02
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_clip: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.999
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    deepspeed: str | None = None
    threads: Count = 2
    losses: LossWeights = LossWeights()
    augmentation: Augmentation = Augmentation()
    adapt: AdaptConfig = AdaptConfig()
    watch: WatchConfig = WatchConfig()
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.04
    validate_every: Count = 500
    export_every: Count = 1000
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        ends = [stage.until for stage in self.stages]
        if ends and (ends != sorted(set(ends)) or ends[-1] != 1.0):
            raise ValueError(f"stages.until: got {ends}, expected growing shares of the budget ending at 1.0")
        if bool(ends) == bool(self.batch_size):
            raise ValueError(f"got {'both' if ends else 'neither'} batch_size {'and' if ends else 'nor'} stages; "
                             "give one of them: batch_size for windows of the whole history, or stages")
        if bool(self.steps) == bool(self.epochs):
            raise ValueError(f"got {'both' if self.steps else 'neither'} epochs {'and' if self.steps else 'nor'} "
                             "steps; give one of them")
        if ends and self.epochs:
            raise ValueError("got epochs with stages, whose batches differ in size; give steps, or batch_size")
        if self.start and self.grounding:
            raise ValueError(
                f"start is {self.start!r} and grounding is {self.grounding!r}; a run starts from one of them"
            )
        if self.new_head and not self.start:
            raise ValueError("got new_head without start; name the bundle that all else is taken from")
        if self.start and self.statistics:
            raise ValueError(f"start is {self.start!r} and statistics is {self.statistics!r}; a run that starts from a "
                             "bundle keeps its normalisers: leave statistics out")
        if bool(self.scenes) != bool(self.scene_batch_size):
            raise ValueError(
                f"scenes is {self.scenes!r} and scene_batch_size is {self.scene_batch_size}; "
                "give both for the side task, or neither"
            )
        if self.patience and not self.validation_share:
            raise ValueError(f"got patience {self.patience} with validation_share 0; hold some episodes out, or leave "
                             "patience out")
        if self.deepspeed and self.parallel != "ddp":
            raise ValueError(f"got deepspeed with parallel {self.parallel}; give one of them")
        if self.precision == "fp16" and (self.deepspeed or self.parallel == "fsdp2"):
            other = "deepspeed" if self.deepspeed else "parallel fsdp2"
            raise ValueError(f"got precision fp16 with {other}, whose split gradients have no loss scaler here; use "
                             "bf16 or fp32")
        if self.parallel == "fsdp2" and self.adapt.lora and self.adapt.lora.four_bit:
            raise ValueError("got adapt.lora.four_bit with parallel fsdp2; weights of 4 bits are not split: use ddp")
        if self.scenes and not self.losses.grounding_weight:
            raise ValueError("got scenes with losses.grounding_weight 0; give it a weight, or leave scenes out")
        return self

    def budget(self, frames: int, window: int) -> Budget:
        """The steps and stages of a run on `frames` frames, for a model with a history of `window` frames."""
        if self.batch_size is None:
            return Budget(self.steps, self.stages)
        steps = self.steps or self.epochs * math.ceil(frames / self.batch_size)
        return Budget(steps, (Stage(until=1.0, window=window, batch_size=self.batch_size),))


def load_training_file(path: Path | str, datasets: Sequence[Path | str] = ()) -> tuple[ModelFile, TrainingConfig]:
    """Read a file of config/training or config/models. `datasets`: folders to learn from instead of the file's.

    Raises: ConfigError naming every mistake.
    """
    file = load_model_file(path)
    named = {"datasets": [{"path": str(folder)} for folder in datasets]} if datasets else {}
    training = parse(TrainingConfig, file.training | named, f"{path}: training", ConfigError)
    if not training.datasets:
        raise ConfigError(f"{path}: got no dataset to learn from; name LeRobot v3 folders in training.datasets, or "
                          "by --data")
    return file, training

"""Demonstrations and a config in, a trained model out: the loop, its validation, its checkpoints.

The loop holds no random state: what happens in step n, noise and dropout too, depends on the seed, n and the
weights. With the same budget of steps a resumed run therefore equals an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vla_policy.action.codec import ActionCodec
from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.losses import ActionTargets, place_loss
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel
from vla_policy.normalizer import Normalizer
from vla_training.augment import augment
from vla_training.config import Stage, TrainingConfig
from vla_training.datasets.windows import Demonstrations, WindowIndex, draw_windows, gather_images
from vla_training.tabletop.grounding import PlaceScale, Scenes, scene_batch
from vla_training.optimization import (
    AveragedWeights,
    autocast,
    learning_rate_at,
    load_state,
    make_optimizer,
    save_state,
)
from vla_training.parallel import Group

VALIDATION_WINDOWS = 256


@dataclass(frozen=True, slots=True)
class Prepared:
    """Demonstrations in the model's units, ready to be cut into windows. place: None where it is not trained on."""

    data: Demonstrations
    state: NDArray[np.float32]
    arm: NDArray[np.float32]
    gripper: NDArray[np.float32] | None
    place: NDArray[np.float32] | None
    text_ids: NDArray[np.int64]
    text_mask: NDArray[np.bool_]
    train_episodes: NDArray[np.int64]
    validation_episodes: NDArray[np.int64]


def prepare(
    data: Demonstrations,
    config: ModelConfig,
    training: TrainingConfig,
    codec: ActionCodec,
    state_normalizer: Normalizer | None,
    tokenizer: Tokenizer,
    scale: PlaceScale | None,
) -> Prepared:
    """Normalise everything once and split episodes into training and validation by the seed."""
    arm, gripper = codec.encode(data.actions)
    ids, mask = tokenizer.encode_batch(data.instructions, config.text_length)
    shuffled = np.random.default_rng(training.seed).permutation(len(data.first))
    held_out = round(training.validation_share * len(shuffled))
    return Prepared(
        data,
        data.state if state_normalizer is None else state_normalizer.apply(data.state),
        arm,
        gripper,
        None if data.place is None or scale is None else scale.apply(data.place),
        ids,
        mask,
        np.sort(shuffled[held_out:]),
        np.sort(shuffled[:held_out]),
    )


@dataclass(slots=True)
class Progress:
    """How far a run is; `minutes` counts training time over all resumes."""

    step: int = 0
    minutes: float = 0.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step gave: losses by name, the learning rate, frames used; `validation` where it was
    measured.
    """

    progress: Progress
    share_done: float
    losses: dict[str, float]
    learning_rate: float
    frames: int
    validation: dict[str, float] | None


class Trainer:
    """Runs the loop. `run` yields a report per step; set `stop_requested` to end it early, `save` to be able
    to go on.
    """

    def __init__(
        self,
        model: VLAModel,
        config: ModelConfig,
        training: TrainingConfig,
        prepared: Prepared,
        scenes: Scenes | None,
        device: torch.device,
        group: Group | None = None,
    ) -> None:
        self.model = model.to(device)
        self._config, self._training, self._prepared, self._scenes = config, training, prepared, scenes
        self._device = device
        self._group = group or Group()
        lengths = (prepared.data.stop - prepared.data.first)[prepared.train_episodes]
        self._schedule = training.schedule(int(lengths.sum()), config.history_length)
        self.optimizer = make_optimizer(model, training.learning_rate, training.weight_decay)
        self.average = AveragedWeights(model, training.ema_decay)
        self.progress = Progress()
        self.stop_requested = False

    def share_done(self) -> float:
        """Share of the budget that is used: of the steps, or of the minutes where that is more."""
        share = self.progress.step / self._schedule.steps
        if self._training.max_minutes:
            share = max(share, self.progress.minutes / self._training.max_minutes)
        return min(1.0, share)

    def run(self) -> Iterator[StepReport]:
        """Train until the budget is used up or `stop_requested` is set, in any process of the group."""
        training = self._training
        while True:
            share, stop = self._group.largest(self.share_done(), float(self.stop_requested))
            if share >= 1.0 or stop:
                return
            started = time.monotonic()
            stage = next(s for s in self._schedule.stages if share < s.until)
            rate = learning_rate_at(
                max(share, 1.0 / self._schedule.steps),
                training.learning_rate,
                training.warmup_ratio,
                training.final_learning_rate_ratio,
            )
            losses = self._step(stage, rate)
            self.progress.step += 1
            validation = None
            due = self.progress.step % training.validate_every == 0 and self._group.rank == 0
            if due and len(self._prepared.validation_episodes):
                validation = self.validate()
            self.progress.minutes += (time.monotonic() - started) / 60.0
            yield StepReport(self.progress, share, losses, rate, stage.batch_size * stage.window, validation)

    def save(self, folder: Path) -> None:
        """Write the state of the run, atomically."""
        save_state(
            folder,
            self.model,
            self.optimizer,
            self.average,
            {"step": self.progress.step, "minutes": self.progress.minutes},
        )

    def resume(self, folder: Path) -> None:
        """Go on from what `save` wrote. Raises: ConfigError."""
        progress = load_state(folder, self.model, self.optimizer, self.average)
        self.progress = Progress(**progress)

    @contextmanager
    def averaged(self) -> Iterator[VLAModel]:
        """The model with its averaged weights, for as long as the body runs."""
        current = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.weights)
        self.model.eval()
        try:
            yield self.model
        finally:
            self.model.load_state_dict(current)
            self.model.train()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights on fixed windows of the held-out episodes, with fixed noise."""
        prepared, sums, batches = self._prepared, {}, 8
        rng = self._random(self._training.seed)
        with self.averaged():
            for _ in range(batches):
                index = draw_windows(
                    prepared.data,
                    prepared.validation_episodes,
                    VALIDATION_WINDOWS // batches,
                    self._config.history_length,
                    self._config.action_chunk_size,
                    rng,
                )
                _, parts = self._losses(index, gather_images(prepared.data, index.frames))
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + value.item() / batches
        return sums

    @staticmethod
    def _random(*seeds: int) -> np.random.Generator:
        """The generator of what numpy draws from here on; torch, which draws noise and dropout, is seeded too."""
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        return np.random.default_rng(seeds)

    def _step(self, stage: Stage, rate: float) -> dict[str, float]:
        rng = self._random(self._training.seed, self.progress.step, self._group.rank)
        self.model.train()
        index = draw_windows(
            self._prepared.data,
            self._prepared.train_episodes,
            max(1, stage.batch_size // self._group.size),
            stage.window,
            self._config.action_chunk_size,
            rng,
        )
        images = augment(gather_images(self._prepared.data, index.frames), self._training.augmentation, rng)
        loss, parts = self._losses(index, images)
        if self._scenes is not None:
            parts["scene"] = self._scene_loss(rng)
            loss = loss + self._training.losses.grounding_weight * parts["scene"]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._group.average_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self._training.gradient_clip)
        self.optimizer.step()
        self.average.update(self.model)
        return {name: value.item() for name, value in (parts | {"loss": loss}).items()}

    def _losses(self, index: WindowIndex, images: NDArray[np.uint8]) -> tuple[Tensor, dict[str, Tensor]]:
        prepared, to = self._prepared, self._to_device
        text = prepared.data.instruction[index.episode]
        targets = ActionTargets(
            arm_BWKA=to(prepared.arm[index.rows]),
            gripper_BWK=None if prepared.gripper is None else to(prepared.gripper[index.rows]),
            rows_BWK=to(index.rows_valid),
            place_BW3=None if prepared.place is None else to(prepared.place[index.frames]),
        )
        with autocast(self._device, self._training.precision):
            return self.model.loss(
                to(images),
                to(prepared.state[index.frames]),
                to(prepared.text_ids[text]),
                to(prepared.text_mask[text]),
                targets,
                self._training.losses,
            )

    def _scene_loss(self, rng: np.random.Generator) -> Tensor:
        batch = scene_batch(self._scenes, max(1, self._training.scene_batch_size // self._group.size), rng)
        with autocast(self._device, self._training.precision):
            guess = self.model.ground(*(self._to_device(part) for part in batch.inputs))
        return place_loss(
            guess,
            self._to_device(batch.place),
            torch.ones(len(guess), dtype=torch.bool, device=self._device),
        )

    def _to_device(self, array: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

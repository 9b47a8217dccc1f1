"""A training file, a robot and a folder in, a run out: its data, model and trainer, and what it leaves in the folder.

    OUTPUT/bundle  the newest policy
    OUTPUT/best    the one with the lowest validation loss
    OUTPUT/state   what a resumed run goes on from
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vla_policy.checkpoint import Bundle, save_bundle
from vla_policy.contract import load_contract
from vla_policy.model.vla import VLAModel
from vla_policy.provenance import provenance
from vla_policy.resources import find_contract
from vla_training.adapt import merged, prepare_model
from vla_training.config import Budget, load_training_file
from vla_training.datasets.training_data import open_training_data
from vla_training.tabletop.grounding import PlaceScale, load_scenes
from vla_training.training import state
from vla_training.training.feed import Feed, Share
from vla_training.training.machine import make_accelerator
from vla_training.training.start import make_start
from vla_training.training.stepper import Stepper
from vla_training.training.trainer import Trainer


class Run:
    """Everything a training run needs, built from its config; every process builds its own."""

    def __init__(self, config_path: Path, robot: str, output: Path, device: str, arguments: Sequence[str] | None = None,
                 datasets: Sequence[Path] = (), program: str = "train") -> None:
        """program: the command, for the provenance.

        Raises: VlaError for whatever is wrong with the config, the data, the weights or the machine.
        """
        self.provenance = provenance(program, arguments)
        self.file, self.training = load_training_file(config_path, datasets)
        self.contract, self.output = load_contract(find_contract(robot)), output
        self.accelerator = make_accelerator(self.training, device)
        torch.manual_seed(self.training.seed)
        with self.accelerator.local_main_process_first():  # the first reading decodes the videos
            self.data = open_training_data(
                self.training.datasets, self.contract, self.file.model, validation_share=self.training.validation_share,
                seed=self.training.seed, cache=self.training.cache, statistics=self.training.statistics)
        self.start = make_start(self.file, self.training, self.contract, self.data)
        self.stepper = Stepper(self.accelerator, prepare_model(self.start.model, self.training.adapt), self.training)
        feed = self._feed()
        budget = self.training.budget(feed.windows.frames, self.file.model.history_length)
        self.trainer = Trainer(self.stepper, feed, self.training, budget, self._identity(budget))

    @property
    def state_folder(self) -> Path:
        """Where the resumable state lies."""
        return self.output / "state"

    @property
    def facts(self) -> dict[str, Any]:
        """What was learnt from, and the statistics that the policy normalises by."""
        return self.data.facts | {"statistics": self.start.statistics}

    def bundle(self, model: VLAModel) -> Bundle:
        """The policy of a model with this run's normalisers, tokenizer and provenance."""
        facts = self.provenance | {
            "steps": self.trainer.progress.step,
            "minutes": round(self.trainer.progress.minutes, 1),
            "validation": self.trainer.progress.validation,
            "seed": self.training.seed,
            "processes": self.accelerator.num_processes,
        } | self.facts
        normalizers = self.start.normalizers
        return Bundle(merged(model), self.file, self.contract, normalizers.state, normalizers.action,
                      self.start.tokenizer, provenance=facts, instructions=self.data.task_sentences)

    def export(self, name: str) -> Path:
        """Write OUTPUT/name from the averaged weights; all processes must call it. Raises: StateError, BundleError."""
        folder = self.output / name
        with self.stepper.averaged(), self.stepper.whole() as model:
            self.stepper.together(lambda: None if model is None else self._write(folder, model))
        return folder

    def _write(self, folder: Path, model: VLAModel) -> None:
        state.check_space(folder, state.whole_bytes(model.state_dict()), "a policy bundle")
        with state.written(folder):
            save_bundle(folder, self.bundle(model))

    def _identity(self, budget: Budget) -> dict[str, Any]:
        """What a resumed run must share with the one that it goes on with; the data by content, wherever it lies."""
        facts, training = self.facts, self.training
        return {
            "data": [f"{source.key[:12]} ({known['frames']} frames, share {known['share']})"
                     for source, known in zip(self.data.sources, facts["sources"], strict=True)],
            "statistics": facts["statistics"],
            "validation_share": training.validation_share,
            "seed": training.seed,
            "stages": [stage.model_dump() for stage in budget.stages],
            "steps": budget.steps,
            "max_minutes": training.max_minutes,
        }

    def _feed(self) -> Feed:
        model, training, start = self.file.model, self.training, self.start
        scale = PlaceScale.of(self.contract) if training.losses.grounding_weight else None
        windows = self.data.train(start.tokenizer, start.normalizers, training.augmentation, scale)
        held_out = self.data.validation(start.tokenizer, start.normalizers, scale)
        scenes = None
        if training.scenes:
            scenes = load_scenes(training.scenes).for_model(start.normalizers.state, start.tokenizer, model.text_length,
                                                            scale)
        share = Share(self.accelerator.process_index, self.accelerator.num_processes, training.accumulation_steps)
        return Feed(windows, held_out, scenes, training.scene_batch_size, model.history_length, share, training.seed,
                    training.workers, pin_memory=self.accelerator.device.type == "cuda")


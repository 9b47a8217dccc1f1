"""The sources of a training file in, sets of windows to train and to validate with out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import DataError
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.strict import parse
from vla_training.datasets.config import Augmentation, Source
from vla_training.datasets.index_cache import cached_index
from vla_training.datasets.mapping import described
from vla_training.datasets.mixture import Mixture, held_out
from vla_training.datasets.prepared import Cache, PreparedSource, prepare_source
from vla_training.datasets.statistics import Normalizers, Statistics, fit_actions, fit_state
from vla_training.datasets.windows import Scale, Texts, WindowSet


class TrainingData:
    """Prepared sources, split into training and validation by episode.

    model: whose windows they are. held_out: of each source, which of its episodes validate, (E,). instructions: all
    sentences, sorted. task_sentences: task -> its sentences, of the sources that the run's statistics are of.
    statistics: of the target's sources. facts: for the bundle's provenance.
    """

    def __init__(
        self,
        sources: Sequence[PreparedSource],
        contract: RobotContract,
        model: ModelConfig,
        validation_share: float,
        seed: int,
        statistics: Path | str | None,
    ) -> None:
        self.sources = list(sources)
        self._contract, self.model, self._seed = contract, model, seed
        self.held_out = held_out(self.sources, validation_share, seed)
        self.instructions = tuple(sorted({text for source in sources for texts in source.sentences for text in texts}))
        target = [source for source in sources if source.source.normalize == "target"] or list(sources)
        self.statistics = fit_statistics(target, contract, model, statistics)
        self.task_sentences = _sentences_by_task(target)

    @property
    def facts(self) -> dict[str, Any]:
        """What was learnt from: sources, their sizes and shares, the statistics' key."""
        shares = Mixture(self.sources, [~side for side in self.held_out]).shares.tolist()
        return {
            "episodes": sum(len(source.episodes) for source in self.sources),
            "frames": sum(int(source.first[-1]) for source in self.sources),
            "sources": [
                source.source.model_dump(mode="json", exclude_defaults=True)
                | {
                    "format": source.data.spec.format,
                    "fingerprint": source.data.spec.fingerprint,
                    "episodes": len(source.episodes),
                    "frames": int(source.first[-1]),
                    "share": round(share, 4),
                }
                for source, share in zip(self.sources, shares, strict=True)
            ],
            "statistics": self.statistics.key,
        }

    def train(
        self,
        tokenizer: Tokenizer,
        normalizers: Normalizers,
        augmentation: Augmentation,
        place_scale: Scale | None = None,
        kind: type[WindowSet] = WindowSet,
    ) -> WindowSet:
        """Windows to train with. normalizers: of the target's sources; others are scaled by their own statistics."""
        chosen = [~side for side in self.held_out]
        return self._windows(kind, chosen, tokenizer, normalizers, augmentation, place_scale)

    def validation(
        self, tokenizer: Tokenizer, normalizers: Normalizers, place_scale: Scale | None = None
    ) -> WindowSet | None:
        """Windows of the held-out episodes, images as they are; None where none are held out."""
        if not any(side.any() for side in self.held_out):
            return None
        return self._windows(WindowSet, self.held_out, tokenizer, normalizers, None, place_scale)

    def _windows(
        self,
        kind: type[WindowSet],
        chosen: Sequence[NDArray[np.bool_]],
        tokenizer: Tokenizer,
        normalizers: Normalizers,
        augmentation: Augmentation | None,
        place_scale: Scale | None,
    ) -> WindowSet:
        own = [
            normalizers
            if source.source.normalize == "target"
            else fit_statistics([source], self._contract, self.model, None).normalizers
            for source in self.sources
        ]
        return kind(
            self.sources,
            Mixture(self.sources, chosen),
            self._texts(tokenizer),
            own,
            self._contract,
            self.model,
            self._seed,
            augmentation,
            place_scale,
        )

    def _texts(self, tokenizer: Tokenizer) -> Texts:
        ids, mask = tokenizer.encode_batch(self.instructions, self.model.text_length)
        row = {text: number for number, text in enumerate(self.instructions)}
        rows = tuple(tuple(tuple(row[text] for text in texts) for texts in source.sentences) for source in self.sources)
        return Texts(ids, mask, rows)


def open_training_data(
    sources: Sequence[Source],
    contract: RobotContract,
    model: ModelConfig,
    *,
    validation_share: float = 0.0,
    seed: int = 0,
    cache: Cache = "none",
    statistics: Path | str | None = None,
) -> TrainingData:
    """Open all sources of a run. cache: `decoded` decodes all images once, to the model's size, beside the data.

    statistics: a file written by `stats` for exactly this data, in place of computing them.
    Raises: ConfigError, DataError: what does not exist, fit the contract, or can be read, naming file and episode.
    """
    prepared = [prepare_source(source, contract, model, cache) for source in sources]
    return TrainingData(prepared, contract, model, validation_share, seed, statistics)


def fit_statistics(
    sources: Sequence[PreparedSource], contract: RobotContract, model: ModelConfig, path: Path | str | None
) -> Statistics:
    """Statistics of some sources together: those in `path` where one is given, else computed once and kept.

    Raises: DataError for a file that is none, or one of other data.
    """
    data = tuple(source.source.path for source in sources)
    told = [*(source.key for source in sources), *described(contract).values(), *contract.action_names]
    key = hashlib.sha256("\n".join(told).encode()).hexdigest()
    if path is not None:
        return Statistics.load(path, key, data)

    def build() -> dict[str, Any]:
        """Read all mapped rows and states."""
        rows = [source.whole_rows() for source in sources]
        return Statistics(
            key=key,
            data=data,
            episodes=sum(len(source.episodes) for source in sources),
            rows=sum(map(len, rows)),
            action=fit_actions(rows, contract),
            state=fit_state([source.state.array for source in sources], contract, model),
        ).model_dump(mode="json")

    kept = parse(Statistics, cached_index(sources[0].data.root, "statistics", key, build), data[0], DataError)
    return kept.model_copy(update={"data": data})


def _sentences_by_task(sources: Sequence[PreparedSource]) -> dict[str, list[str]]:
    shown: dict[str, set[str]] = {}
    for source in sources:
        for number, texts in enumerate(source.sentences):
            shown.setdefault(source.task(number), set()).update(texts)
    return {task: sorted(texts) for task, texts in sorted(shown.items())}

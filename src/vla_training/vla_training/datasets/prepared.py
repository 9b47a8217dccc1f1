"""One source of a training file in, its chosen episodes as mapped columns, images and sentences out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, DataError, nearest
from vla_policy.model.config import ModelConfig
from vla_policy.observation.resize import resize_image
from vla_training.datasets.cache import ArrayFile, array_files, decoded_images, key_of
from vla_training.datasets.config import Source
from vla_training.datasets.mapping import ContractMapping
from vla_training.datasets.registry import open_source
from vla_training.datasets.resolve import rate_of, resolve_cameras, resolve_mapping
from vla_training.datasets.rows import Rates, at_contract_rate, rates_of
from vla_training.datasets.source import EpisodeInfo, EpisodeSource

Cache = Literal["decoded", "none"]
COLUMNS_VERSION = 1  # goes up when the same mapping gives other numbers


@dataclass(frozen=True)
class PreparedSource:
    """The chosen episodes of a data set, one after the other; pickles to worker processes.

    episodes: int (E,), their numbers in `data`. first: int (E + 1,), where each begins among all their frames, N in
    the end.
    rows: float32 (N * rates.rows_per_frame, A), contract units and rate. state: float32 (N, P). place: float32 (N, 3)
    [m], or None.
    images: uint8 (N, V, S, S, 3), or None where they are decoded when they are drawn. cameras: published names, in
    the model's order.
    sentences: of each episode. key: digest of all that the columns were made from.
    """

    source: Source
    data: EpisodeSource
    episodes: NDArray[np.int64]
    first: NDArray[np.int64]
    rates: Rates
    rows: ArrayFile
    state: ArrayFile
    place: ArrayFile | None
    images: ArrayFile | None
    cameras: tuple[str, ...]
    image_size: int
    sentences: tuple[tuple[str, ...], ...]
    key: str

    @cached_property
    def length_E(self) -> NDArray[np.int64]:
        """Frames of each episode, (E,)."""
        return np.diff(self.first)

    @cached_property
    def lengths(self) -> list[int]:
        """The same as plain numbers, which are quicker one by one."""
        return self.length_E.tolist()

    def task(self, episode: int) -> str:
        """Short name of what the chosen episode number `episode` shows."""
        return task_of(self.data.episodes[self.episodes[episode]])

    def whole_rows(self) -> NDArray[np.float32]:
        """The rows that are no fill, for statistics."""
        rows = self.rows.array
        if self.rates.join == 1:
            return rows
        count = self.length_E * self.rates.rows_per_frame
        left = np.repeat(np.cumsum(count), count) - np.arange(len(rows))  # rows of the episode from here on
        return rows[left >= self.rates.join]

    def window_images(self, episode: int, frames: NDArray[np.int64], view: int) -> Sequence[NDArray[np.uint8]]:
        """Images (S, S, 3) of frames of a chosen episode; each frame that is asked for is decoded once."""
        if self.images is not None:
            array, first = self.images.array, self.first[episode]
            return [array[first + frame, view] for frame in frames]
        wanted, order = np.unique(frames, return_inverse=True)
        decoded = self.data.images(int(self.episodes[episode]), self.cameras[view], wanted)
        small = [resize_image(image, self.image_size) for image in decoded]
        return [small[i] for i in order]


def prepare_source(source: Source, contract: RobotContract, model: ModelConfig, cache: Cache) -> PreparedSource:
    """Open, choose, map and, with cache `decoded`, decode. Raises: ConfigError, DataError: see the readers, `mapping`
    and `rows`.
    """
    data = open_source(source.path, source.format)
    mapping = resolve_mapping(source, data, contract, model)
    cameras = tuple(resolve_cameras(source, data, contract, model)[name] for name in model.cameras)
    rates = rates_of(source.path, rate_of(source, data), mapping.rows_per_frame, source.resample, contract, model)
    episodes, sentences = choose_episodes(source, data.episodes)
    first = np.cumsum([0] + [data.episodes[episode].length for episode in episodes])
    key = key_of(
        COLUMNS_VERSION, data.spec.fingerprint, mapping.key, episodes, [rates.rows_per_frame, rates.split, rates.join]
    )
    arrays = _mapped_columns(data, mapping, episodes, first, rates, contract, key)
    images = decoded_images(data, episodes, cameras, model.image_size) if cache == "decoded" else None
    return PreparedSource(
        source,
        data,
        np.array(episodes),
        first,
        rates,
        arrays["rows"],
        arrays["state"],
        arrays.get("place"),
        images,
        cameras,
        model.image_size,
        sentences,
        key,
    )


def choose_episodes(source: Source, episodes: Sequence[EpisodeInfo]) -> tuple[list[int], tuple[tuple[str, ...], ...]]:
    """Numbers and sentences of the episodes that the source names and that have a sentence.

    Raises: ConfigError for an unknown task; DataError where nothing is left.
    """
    low, high = source.episodes or (0, len(episodes))
    if high > len(episodes):
        raise ConfigError(
            f"{source.path}: episodes: got [{low}, {high}], expected at most {len(episodes)}, which is all there are"
        )
    known = sorted({task_of(episode) for episode in episodes})
    for name in source.tasks:
        if name not in known:
            raise ConfigError(f"{source.path}: no task '{name}' in it; {nearest(name, known)}")
    named = [i for i in range(low, high) if not source.tasks or task_of(episodes[i]) in source.tasks]
    chosen = [i for i in named if episodes[i].length and any(text.strip() for text in episodes[i].instructions)]
    if not chosen:
        raise DataError(
            f"{source.path}: no episode to learn from: {len(episodes)} in all, {len(named)} chosen by tasks and "
            "episodes, none of these with frames and an instruction"
        )
    more = load_paraphrases(source, {text for i in chosen for text in episodes[i].instructions})
    said = (dict.fromkeys(text for text in episodes[i].instructions if text.strip()) for i in chosen)
    return chosen, tuple(
        tuple(dict.fromkeys(text for own in texts for text in (own, *more.get(own, ())))) for texts in said
    )


def task_of(episode: EpisodeInfo) -> str:
    """The short name of an episode's task; its first sentence where the data has none."""
    return episode.task or next(iter(episode.instructions), "")


def load_paraphrases(source: Source, known: set[str]) -> dict[str, list[str]]:
    """Sentence -> others that mean the same. Raises: ConfigError for another layout, or a sentence that the data does
    not have.
    """
    if source.paraphrases is None:
        return {}
    path = Path(source.paraphrases)
    try:
        found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as problem:
        raise ConfigError(f"{path}: {problem}; expected a YAML file, sentence -> list of sentences") from None
    fits = isinstance(found, dict) and all(
        isinstance(texts, list) and all(isinstance(text, str) and text.strip() for text in texts)
        for texts in found.values()
    )
    if not fits:
        raise ConfigError(f"{path}: expected a mapping, sentence -> list of sentences that mean the same")
    for sentence in found:
        if sentence not in known:
            raise ConfigError(
                f"{path}: '{sentence}' is said in no chosen episode of {source.path}; "
                f"{nearest(sentence, sorted(known)[:50])}"
            )
    return found


def _mapped_columns(
    data: EpisodeSource,
    mapping: ContractMapping,
    episodes: Sequence[int],
    first: NDArray[np.int64],
    rates: Rates,
    contract: RobotContract,
    key: str,
) -> dict[str, ArrayFile]:
    frames, per_frame = int(first[-1]), rates.rows_per_frame
    arrays = {
        "rows": ((frames * per_frame, len(contract.action_names)), "float32"),
        "state": ((frames, mapping.state_size), "float32"),
    }
    if mapping.has_place:
        arrays["place"] = ((frames, 3), "float32")

    def fill(out: dict[str, NDArray[Any]]) -> None:
        """Map episode after episode."""
        for number, episode in enumerate(episodes):
            info, (start, stop) = data.episodes[episode], first[number : number + 2]
            mapped = mapping.episode(data.columns(episode, mapping.columns), info.key)
            if len(mapped.actions) != info.length:
                raise DataError(
                    f"{info.key}: its columns have {len(mapped.actions)} frames, expected {info.length}; "
                    "record or convert it anew"
                )
            out["rows"][start * per_frame : stop * per_frame] = at_contract_rate(mapped.actions, rates, contract)
            out["state"][start:stop] = mapped.state
            if mapped.place is not None:
                out["place"][start:stop] = mapped.place

    return array_files(data, "columns", key, arrays, fill)

"""Prepared sources in, their episodes as the policy would meet them on the robot out: for the open loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from vla_policy.checkpoint import Bundle
from vla_policy.contract import RobotContract
from vla_policy.model.config import ModelConfig
from vla_policy.model.vla import VLAModel
from vla_policy.types import Observation
from vla_training.datasets.prepared import PreparedSource
from vla_training.datasets.resolve import resolve_mapping
from vla_training.datasets.training_data import TrainingData
from vla_training.watch.config import OpenLoop
from vla_training.watch.measured import OpenLoopResult
from vla_training.watch.open_loop import Recording, measure, replaying

BLOCK = 16  # frames decoded at once: a few megabytes, and a video is not searched anew for each


def recordings(
    sources: Sequence[PreparedSource],
    chosen: Sequence[NDArray[np.bool_]],
    contract: RobotContract,
    model: ModelConfig,
    most: int,
) -> list[Recording]:
    """At most `most` of the chosen episodes, spread evenly over them; none of sources in the units of another robot.

    chosen: of each source, which of its episodes may be taken, (E,).
    """
    places = [
        (source, int(episode))
        for source, side in zip(sources, chosen, strict=True)
        if source.source.normalize == "target"
        for episode in np.flatnonzero(side)
    ]
    taken = np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))
    return [_recording(*places[number], contract, model) for number in taken]


def held_out_measure(
    data: TrainingData,
    contract: RobotContract,
    config: OpenLoop,
    bundle_of: Callable[[VLAModel], Bundle],
    device: torch.device,
) -> Callable[[VLAModel], OpenLoopResult] | None:
    """Measures a model on the held-out episodes of a run; None where there are none.

    bundle_of: the policy that a model would be exported as.
    """
    found = recordings(data.sources, data.held_out, contract, data.model, config.episodes)
    if not found:
        return None
    return lambda model: measure(replaying(bundle_of(model), str(device)), found, contract, config.drawn)


def _recording(source: PreparedSource, episode: int, contract: RobotContract, model: ModelConfig) -> Recording:
    info = source.data.episodes[source.episodes[episode]]
    rates, (start, stop) = source.rates, source.first[episode : episode + 2] * source.rates.rows_per_frame
    whole = np.array(source.rows.array[start : stop - (rates.join - 1)], np.float64)  # the last ones are fill
    observe = _Observe(source, episode, contract, model)
    return Recording(info.key, source.sentences[episode][0], observe, whole[:: rates.join])


@dataclass(frozen=True, slots=True)
class _Observe:
    """Begins an iteration over the observations of an episode, a policy period apart."""

    source: PreparedSource
    episode: int
    contract: RobotContract
    model: ModelConfig

    def __call__(self) -> Iterator[Observation]:
        source, number = self.source, int(self.source.episodes[self.episode])
        info = source.data.episodes[number]
        mapping = resolve_mapping(source.source, source.data, self.contract, self.model)
        felt = mapping.observations(source.data.columns(number, mapping.columns), info.key)
        frames = np.arange(0, info.length, source.rates.stride)
        period_ns = self.model.execute_rows * self.contract.action_dt_ns
        for first in range(0, len(frames), BLOCK):
            block = frames[first : first + BLOCK]
            views = {
                name: source.data.images(number, camera, block)
                for name, camera in zip(self.model.cameras, source.cameras, strict=True)
            }
            for place, frame in enumerate(block):
                images = {name: images[place] for name, images in views.items()}
                yield replace(felt[frame], stamp_ns=(first + place) * period_ns, images=images)

"""A policy in, the same policy made blind or misled out: whether it looks and reads is seen by how it fails then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vla_policy.run import SteppedPolicy
from vla_policy.types import ActionChunk, Observation

GREY = 127
SWAPS = {  # each word becomes the next in its ring, so that every sentence asks for something else
    word: ring[(place + 1) % len(ring)]
    for ring in (("red", "green", "blue", "yellow"), ("left", "right"), ("open", "close"), ("out", "shut"),
                 ("on", "off"), ("white", "black"))
    for place, word in enumerate(ring)
}
TWO_MEANINGS = ("block on",)  # here "on" says where a block goes, not how the light shall be


class Misled:
    """A policy that gets other images or another instruction than were meant for it."""

    def __init__(
        self,
        policy: SteppedPolicy,
        see: Callable[[Observation], Observation] = lambda seen: seen,
        hear: Callable[[str], str] = lambda said: said,
    ) -> None:
        self._policy, self._see, self._hear = policy, see, hear
        self.period_ns = policy.period_ns

    @property
    def timings(self) -> dict[str, float]:
        """Those of the policy."""
        return self._policy.timings

    def reset(self, instruction: str) -> None:
        """Forget the history and take another instruction."""
        self._policy.reset(self._hear(instruction))

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """One inference."""
        return self._policy.step(self._see(observation), run_id)


def grey(observation: Observation) -> Observation:
    """The same instant with nothing to see; state and stamps stay."""
    return replace(observation, images={name: np.full_like(image, GREY) for name, image in observation.images.items()})


def swapped(instruction: str) -> str:
    """The sentence with its colours, sides and directions exchanged; without such words it stays as it is."""
    words = instruction.split()
    return " ".join(word if " ".join(words[max(0, place - 1):place + 1]) in TWO_MEANINGS else SWAPS.get(word, word)
                    for place, word in enumerate(words))


CONTROLS: dict[str, Callable[[SteppedPolicy], SteppedPolicy]] = {
    "grey": lambda policy: Misled(policy, see=grey),
    "swapped": lambda policy: Misled(policy, hear=swapped),
}

"""A policy in, the same policy out that sees or reads wrongly: does it look, does it read?

A policy that scores as well with grey images does not look; one that scores as well with swapped words does not read.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from vla_policy.run import SteppedPolicy
from vla_policy.types import ActionChunk, Observation

GREY = 128
CIRCLES = (("left", "right"), ("open", "close"), ("on", "off"), ("red", "green", "blue", "yellow"), ("white", "black"))
NEXT_WORD = {word: circle[(number + 1) % len(circle)] for circle in CIRCLES for number, word in enumerate(circle)}


class GreyImages:
    """A policy whose cameras show nothing but grey."""

    def __init__(self, policy: SteppedPolicy) -> None:
        self._policy = policy
        self.period_ns = policy.period_ns

    @property
    def timings(self) -> dict[str, float]:
        """Those of the policy."""
        return self._policy.timings

    def reset(self, instruction: str) -> None:
        """The instruction as it is."""
        self._policy.reset(instruction)

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """A step on grey images."""
        grey = {name: np.full_like(image, GREY) for name, image in observation.images.items()}
        return self._policy.step(replace(observation, images=grey), run_id)


class SwappedWords:
    """A policy that is told the opposite: the next colour, the other side, close for open."""

    def __init__(self, policy: SteppedPolicy) -> None:
        self._policy = policy
        self.period_ns = policy.period_ns

    @property
    def timings(self) -> dict[str, float]:
        """Those of the policy."""
        return self._policy.timings

    def reset(self, instruction: str) -> None:
        """Another instruction."""
        self._policy.reset(swap_words(instruction))

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """A step as it is."""
        return self._policy.step(observation, run_id)


def swap_words(instruction: str) -> str:
    """Every word of CIRCLES replaced by the next one of its circle; other words stay."""
    return re.sub(r"\w+", lambda match: NEXT_WORD.get(match[0], match[0]), instruction)


CONTROLS = {"grey": GreyImages, "swapped": SwappedWords}

"""A scene and the state of its simulator in, what a person's hands would ask for out: an expert's, not quite steady."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim_bridges.sim import Episode
from sim_bridges.tabletop.experts import Expert
from sim_bridges.tabletop.motion import MAX_STEP_M
from sim_bridges.tabletop.sim import TabletopSim

ROW_S = 0.05  # what an expert's row is meant for
UNSEEN_PX = 8  # the twin's images are never drawn
MEMORY = 0.8  # of the wandering from one look to the next: a hand drifts, it does not tremble


class ScriptedHands:
    """Stands in a twin of the scene wherever the simulator stands, and asks the expert there.

    wander_m: standard deviation of the drift that is added at each look [m in ROW_S].
    """

    def __init__(self, wander_m: float = 0.001) -> None:
        self._twin = TabletopSim(UNSEEN_PX)
        self._wander_m = wander_m

    def begin(self, task: str, seed: int) -> Episode:
        """A new scene. Raises: VlaError for an unknown task."""
        episode = self._twin.reset(task, seed)
        self._expert = Expert(self._twin)
        self._rng = np.random.default_rng([seed, 2])
        self._drift = np.zeros(3)
        return episode

    def look(self, state: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
        """The twist (6,) that is wanted now [m/s, rad/s], and whether the fingers shall be open.

        Raises: VlaError for a state of another simulator.
        """
        self._twin.restore(state)
        row = self._expert.act()
        self._drift = MEMORY * self._drift + self._rng.normal(0.0, self._wander_m, 3)
        step = row[:3] + self._drift
        length = float(np.linalg.norm(step))
        step = step if length <= MAX_STEP_M else step * (MAX_STEP_M / length)
        return np.concatenate([step, row[3:6]]) / ROW_S, bool(row[6] > 0.5)

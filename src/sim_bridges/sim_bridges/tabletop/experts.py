"""A TabletopSim in, the next action row out: scripted experts that see the true state, one per task family.

They keep no memory: each row follows from where things are now, so an expert recovers from any push, begins wherever
the task before it ended, and can label noisy rollouts (DART, Laskey et al. 2017).
`evaluate --policy expert` measures them.
"""

from __future__ import annotations

from collections.abc import Callable

from sim_bridges.tabletop import block_experts, fixture_experts
from sim_bridges.tabletop.motion import Hand, Vector
from sim_bridges.tabletop.sim import TabletopSim
from sim_bridges.tabletop.tasks import Family, Goal
from vla_policy.errors import VlaError
from vla_policy.types import ActionChunk, Observation, seconds_to_ns

ROW_NS = seconds_to_ns(0.05)  # what a row is meant for

Rule = Callable[[Hand, Goal, Vector], Vector]


class Expert:
    """Acts for the sim's present goal. Raises: VlaError when the sim has no task."""

    def __init__(self, sim: TabletopSim) -> None:
        if sim.goal is None:
            raise VlaError("expert: got a sim without a task, expected one; call reset(task, seed) first")
        self._hand, self._goal = Hand(sim), sim.goal
        self._start = sim.target_position()
        self._rule = _RULES[sim.goal.family]

    def act(self) -> Vector:
        """The next row, (7,): x y z [m], rotation vector [rad] within 50 ms in base_link; gripper 0 .. 1."""
        return self._rule(self._hand, self._goal, self._start)


class ExpertPolicy:
    """The experts as a policy (`vla_policy.run.SteppedPolicy`) that acts on the sim itself, not on what it observes."""

    period_ns = ROW_NS

    def __init__(self, sim: TabletopSim) -> None:
        self._sim = sim
        self.timings: dict[str, float] = {}

    def reset(self, instruction: str) -> None:
        """Begin the sim's present task; the words are not read. Raises: VlaError when the sim has no task."""
        self._expert = Expert(self._sim)

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """The next row as a chunk."""
        return ActionChunk(observation.stamp_ns, ROW_NS, self._expert.act()[None], 1, run_id)


_RULES: dict[Family, Rule] = {
    Family.LIFT: block_experts.lift,
    Family.PUSH: block_experts.push,
    Family.SLIDE: block_experts.slide,
    Family.STACK: block_experts.stack,
    Family.STORE: block_experts.store,
    Family.DRAWER: fixture_experts.drawer,
    Family.PRESS: fixture_experts.press,
    Family.LIGHT: fixture_experts.light,
    Family.BRING: block_experts.bring,
}


def expert(sim: TabletopSim) -> Expert:
    """The expert for the sim's present task."""
    return Expert(sim)

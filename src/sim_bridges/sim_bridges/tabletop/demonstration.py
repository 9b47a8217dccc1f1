"""A TabletopSim in, an expert out that plays through the guard as a policy does."""

from __future__ import annotations

from sim_bridges.chains import ChainResult
from sim_bridges.results import EpisodeResult
from sim_bridges.rollout import Watcher, rollout, rollout_chain
from sim_bridges.tabletop.experts import Expert, expert
from sim_bridges.tabletop.sim import TabletopSim
from vla_policy.contract import RobotContract
from vla_policy.types import ActionChunk, Observation

TIME_LIMIT_S = 6.0  # of one task


class ExpertPolicy:
    """An expert behind the interface of a policy: one row a chunk, a new one every control period."""

    def __init__(self, sim: TabletopSim, contract: RobotContract) -> None:
        self._sim = sim
        self.period_ns = contract.action_dt_ns
        self.timings: dict[str, float] = {}
        self._expert: Expert | None = None

    def reset(self, instruction: str) -> None:
        """Look at the scene that the sim was reset to; it knows better than the instruction."""
        self._expert = expert(self._sim)

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """The next row."""
        row = self._expert.act()
        return ActionChunk(observation.stamp_ns, self.period_ns, row[None], execute_rows=1, run_id=run_id)


def demonstrate(sim: TabletopSim, contract: RobotContract, task: str, seed: int, time_limit_s: float = TIME_LIMIT_S,
                watch: Watcher | None = None) -> EpisodeResult:
    """Play one episode with the expert, through the guard. Raises: VlaError for an unknown task."""
    return rollout(sim, ExpertPolicy(sim, contract), contract, task, seed, time_limit_s, watch)


def demonstrate_chain(sim: TabletopSim, contract: RobotContract, seed: int, time_limit_s: float = TIME_LIMIT_S,
                      watch: Watcher | None = None) -> ChainResult:
    """Play the chain of a seed with the experts, through the guard."""
    return rollout_chain(sim, ExpertPolicy(sim, contract), contract, sim.draw_chain(seed), time_limit_s, watch)

"""A TabletopSim in, an expert out that plays through the guard as a policy does."""

from __future__ import annotations

from sim_bridges.chains import ChainResult
from sim_bridges.results import EpisodeResult
from sim_bridges.rollout import Watcher, rollout, rollout_chain
from sim_bridges.tabletop.experts import ExpertPolicy
from sim_bridges.tabletop.sim import TabletopSim
from vla_policy.contract import RobotContract

TIME_LIMIT_S = 6.0  # of one task


def demonstrate(sim: TabletopSim, contract: RobotContract, task: str, seed: int, time_limit_s: float = TIME_LIMIT_S,
                watch: Watcher | None = None) -> EpisodeResult:
    """Play one episode with the expert, through the guard. Raises: VlaError for an unknown task."""
    return rollout(sim, ExpertPolicy(sim), contract, task, seed, time_limit_s, watch)


def demonstrate_chain(sim: TabletopSim, contract: RobotContract, seed: int, time_limit_s: float = TIME_LIMIT_S,
                      watch: Watcher | None = None) -> ChainResult:
    """Play the chain of a seed with the experts, through the guard."""
    return rollout_chain(sim, ExpertPolicy(sim), contract, sim.draw_chain(seed), time_limit_s, watch)

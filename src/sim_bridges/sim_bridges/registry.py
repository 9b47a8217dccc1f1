"""A simulator's name in, a built simulator out. Heavy imports wait until one is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any

from sim_bridges.sim import Sim
from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, nearest

UNSEEN_SEED = 1_000_000  # far from any seed that demonstrations are collected with


@dataclass(frozen=True, slots=True)
class SimEntry:
    """sim: `module:factory`, called with the contract. expert: `module:class`, a policy made of the sim, or none.

    time_limit_s: sim time that an instruction gets where nobody says otherwise. first_seed: of an evaluation likewise.
    """

    sim: str
    expert: str | None
    time_limit_s: float
    first_seed: int


SIMS = {
    "calvin": SimEntry(
        "sim_bridges.calvin.sim:CalvinSim.for_contract",
        "sim_bridges.calvin.experts:Expert",
        time_limit_s=11.99999988,
        first_seed=0,
    ),  # 360 steps of 33 333 333 ns
    "tabletop": SimEntry(
        "sim_bridges.tabletop.sim:TabletopSim.for_contract",
        "sim_bridges.tabletop.experts:ExpertPolicy",
        time_limit_s=8.0,
        first_seed=UNSEEN_SEED,
    ),
}


def make_sim(name: str, contract: RobotContract) -> Sim:
    """Build the simulator `name` for a robot contract. Raises: ConfigError for an unknown name."""
    return load(find_sim(name).sim)(contract)


def find_sim(name: str) -> SimEntry:
    """What is known of a simulator without building it. Raises: ConfigError for an unknown name, with the nearest."""
    if name not in SIMS:
        raise ConfigError(f"sim: got '{name}'; {nearest(name, SIMS)}")
    return SIMS[name]


def load(place: str) -> Any:
    """What lies at `module:name`."""
    module, _, name = place.partition(":")
    return attrgetter(name)(import_module(module))

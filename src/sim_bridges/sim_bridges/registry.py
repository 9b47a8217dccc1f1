"""A simulator's name in, a built simulator out. Heavy imports wait until one is chosen."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter

from sim_bridges.sim import Sim
from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, nearest

SIMS = {
    "calvin": "sim_bridges.calvin.sim:CalvinSim.for_contract",
    "tabletop": "sim_bridges.tabletop.sim:TabletopSim.for_contract",
}


def make_sim(name: str, contract: RobotContract) -> Sim:
    """Build the simulator `name` for a robot contract. Raises: ConfigError for an unknown name."""
    if name not in SIMS:
        raise ConfigError(f"sim: got '{name}'; {nearest(name, SIMS)}")
    module, _, factory = SIMS[name].partition(":")
    return attrgetter(factory)(import_module(module))(contract)

"""A simulator's name in, a built simulator out. Heavy imports wait until one is chosen."""

from __future__ import annotations

from importlib import import_module

from sim_bridges.sim import Sim
from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, nearest

SIMS = {
    "tabletop": "sim_bridges.tabletop.sim:TabletopSim",
}


def make_sim(name: str, contract: RobotContract) -> Sim:
    """Build the simulator `name` for a robot contract. Raises: ConfigError for an unknown name."""
    if name not in SIMS:
        raise ConfigError(f"sim: got '{name}'; {nearest(name, SIMS)}")
    module, _, attribute = SIMS[name].partition(":")
    return getattr(import_module(module), attribute)(contract)

"""A simulator's name in, a built simulator out. Heavy imports wait until one is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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

    first_seed: of an evaluation where nobody says otherwise. variables: of the process's environment, that decide what
    is simulated. benchmarks: name -> `module:object`, an `evaluation.benchmarks.Benchmark`.
    """

    sim: str
    expert: str | None
    first_seed: int
    variables: tuple[str, ...] = ()
    benchmarks: Mapping[str, str] = field(default_factory=dict)


SIMS = {
    "calvin": SimEntry(
        "sim_bridges.calvin.sim:CalvinSim.for_contract",
        "sim_bridges.calvin.experts:Expert",
        first_seed=0,
        variables=("CALVIN_SCENE",),
    ),
    "simpler": SimEntry(
        "sim_bridges.simpler.sim:SimplerSim.for_contract",
        "sim_bridges.simpler.experts:Expert",
        first_seed=0,
        variables=("SIMPLER_SHADER",),
        benchmarks={
            "visual_matching": "sim_bridges.simpler.benchmark:VISUAL_MATCHING",
            "variant_aggregation": "sim_bridges.simpler.benchmark:VARIANT_AGGREGATION",
            "camera_variants": "sim_bridges.simpler.benchmark:CAMERA_VARIANTS",
            "twins": "sim_bridges.simpler.benchmark:TWIN_SET",
        },
    ),
    "tabletop": SimEntry(
        "sim_bridges.tabletop.sim:TabletopSim.for_contract",
        "sim_bridges.tabletop.experts:ExpertPolicy",
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

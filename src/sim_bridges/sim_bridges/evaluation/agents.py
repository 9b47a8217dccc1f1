"""A word of the command line in, a policy out: a bundle, a policy server, a scripted expert, or chance.

`tabletop` or a folder is a bundle; `ws://host:port` a policy server (`vla_policy.remote`, or any of vla-eval's);
`expert` the simulator's own script, which sees the true state; `random` draws commands within the contract's limits.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

from sim_bridges.registry import SIMS, find_sim, load
from sim_bridges.sim import Sim
from vla_policy.chance import RANDOM, RandomPolicy
from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError
from vla_policy.remote.client import connect
from vla_policy.resources import find_policy, is_server
from vla_policy.run import SteppedPolicy

EXPERT = "expert"
ANSWER_S = 30.0  # an evaluation can wait


def describe(policy: str) -> dict[str, str]:
    """What run.json says of a policy: its word, and of a bundle a checksum. Raises: ConfigError for no such bundle."""
    if policy in (EXPERT, RANDOM) or is_server(policy):
        return {"policy": policy}
    manifest = Path(find_policy(policy)) / "manifest.json"
    return {"policy": policy, "bundle": f"{crc32(manifest.read_bytes()):08x}" if manifest.is_file() else ""}


def make_policy(policy: str, sim_name: str, sim: Sim, contract: RobotContract) -> SteppedPolicy:
    """The policy that a word names. Raises: ConfigError, BundleError, RemoteError."""
    if policy == EXPERT:
        return _expert(sim_name, sim)
    if policy == RANDOM:
        return RandomPolicy(contract)
    if is_server(policy):
        return connect(policy, contract, ANSWER_S)
    from vla_policy.policy import Policy  # torch; a run over ROS must not load it

    loaded = Policy.load(Path(find_policy(policy)), robot=contract)
    loaded.warm_up()
    return loaded


def _expert(sim_name: str, sim: Sim) -> SteppedPolicy:
    place = find_sim(sim_name).expert
    if place is None:
        known = ", ".join(name for name, entry in SIMS.items() if entry.expert)
        raise ConfigError(
            f"--policy expert: got sim '{sim_name}', which has no scripted expert; those with one: {known}"
        )
    return load(place)(sim)

"""A word of the command line in, a policy out: a bundle, a policy server, a scripted expert, or chance.

`tabletop` or a folder is a bundle; `ws://host:port` a policy server (`vla_policy.remote`, or any of vla-eval's);
`expert` the simulator's own script, which sees the true state; `random` draws commands within the contract's limits.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np

from sim_bridges.registry import SIMS, find_sim, load
from sim_bridges.sim import Sim
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError
from vla_policy.remote.client import connect
from vla_policy.resources import find_policy, is_server
from vla_policy.run import SteppedPolicy
from vla_policy.types import ActionChunk, Observation

EXPERT, RANDOM = "expert", "random"
ANSWER_S = 30.0  # an evaluation can wait


def describe(policy: str) -> dict[str, str]:
    """What run.json says of a policy: its word, and of a bundle a checksum. Raises: ConfigError for no such bundle."""
    if policy in (EXPERT, RANDOM) or is_server(policy):
        return {"policy": policy}
    manifest = Path(find_policy(policy)) / "manifest.json"
    return {"policy": policy, "bundle": f"{crc32(manifest.read_bytes()):08x}" if manifest.is_file() else ""}


def make_policy(policy: str, sim_name: str, sim: Sim, contract: RobotContract, seed: int = 0) -> SteppedPolicy:
    """The policy that a word names. seed: of chance. Raises: ConfigError, BundleError, RemoteError."""
    if policy == EXPERT:
        return _expert(sim_name, sim)
    if policy == RANDOM:
        return RandomPolicy(contract, seed)
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


class RandomPolicy:
    """Steps in random directions, of half the contract's speed on average; the gripper opens and closes at random.

    The rows of an episode depend on the seed and on how many episodes came before since `reseed`.
    """

    ROWS = 4

    def __init__(self, contract: RobotContract, seed: int = 0) -> None:
        self._contract = contract
        self.period_ns = self.ROWS * contract.action_dt_ns
        self.timings: dict[str, float] = {}
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin anew, so that what a trial sees does not depend on the trials before it."""
        self._rng = np.random.default_rng(seed)

    def reset(self, instruction: str) -> None:
        """Nothing to forget."""

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """A chunk of ROWS rows."""
        contract, limits = self._contract, self._contract.limits
        dt_s = contract.action_dt_ns / 1e9
        if contract.action.kind is ActionKind.JOINT_POSITION:
            index = [contract.joints.names.index(name) for name in contract.action.joints]
            low, high = np.array(limits.joint_position).T
            start, reach = observation.joints[index], np.array(limits.joint_velocity) * dt_s
            steps = np.cumsum(self._rng.uniform(-0.5, 0.5, (self.ROWS, len(index))) * reach, 0)
            arm = np.clip(start + steps, low, high)
        else:
            reach = np.repeat([limits.linear_velocity_m_s, limits.angular_velocity_rad_s], 3) * dt_s / 2
            arm = self._rng.uniform(-1.0, 1.0, (self.ROWS, 6)) * reach
            if contract.action.kind is ActionKind.EE_POSE:
                raise ConfigError(
                    f"--policy random: contract {contract.name} takes poses; use its contract of relative actions"
                )
        gripper = np.repeat(self._rng.integers(0, 2), self.ROWS)[:, None]
        values = np.concatenate([arm, gripper], 1) if contract.action.gripper else arm
        return ActionChunk(observation.stamp_ns, contract.action_dt_ns, values.astype(np.float64), self.ROWS, run_id)

"""A robot contract in, a policy that acts at random within its limits out: what every other policy must beat."""

from __future__ import annotations

import hashlib

import numpy as np

from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError
from vla_policy.types import ActionChunk, Observation

RANDOM = "random"  # its name where a policy is asked for


class RandomPolicy:
    """Steps in random directions, of half the contract's speed on average; the gripper opens and closes at random.

    What it does in an episode follows from the instruction and the first observation alone: a scene is played the same
    whatever came before it, and wherever the policy runs.
    """

    ROWS = 4
    history_frames = 0

    def __init__(self, contract: RobotContract) -> None:
        """Raises: ConfigError for a contract that takes poses, among which there are no small random steps."""
        if contract.action.kind is ActionKind.EE_POSE:
            raise ConfigError(
                f"policy random: contract {contract.name} takes poses; use its contract of relative actions"
            )
        self._contract = contract
        self.cameras = tuple(contract.cameras)
        self.period_ns = self.ROWS * contract.action_dt_ns
        self.timings: dict[str, float] = {}
        self.reset("")

    def reset(self, instruction: str) -> None:
        """Begin an episode."""
        self._instruction = instruction
        self._rng: np.random.Generator | None = None

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        """A chunk of ROWS rows."""
        if self._rng is None:
            self._rng = np.random.default_rng(_seed(self._instruction, observation))
        arm = self._arm(observation, self._rng)
        gripper = np.repeat(self._rng.integers(0, 2), self.ROWS)[:, None]
        values = np.concatenate([arm, gripper], 1) if self._contract.action.gripper else arm
        return ActionChunk(
            observation.stamp_ns, self._contract.action_dt_ns, values.astype(np.float64), self.ROWS, run_id
        )

    def _arm(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        contract, limits = self._contract, self._contract.limits
        dt_s = contract.action_dt_ns / 1e9
        if contract.action.kind is ActionKind.EE_DELTA:
            reach = np.repeat([limits.linear_velocity_m_s, limits.angular_velocity_rad_s], 3) * dt_s / 2
            return rng.uniform(-1.0, 1.0, (self.ROWS, 6)) * reach
        index = [contract.joints.names.index(name) for name in contract.action.joints]
        low, high = np.array(limits.joint_position).T
        reach = np.array(limits.joint_velocity) * dt_s
        steps = np.cumsum(rng.uniform(-0.5, 0.5, (self.ROWS, len(index))) * reach, 0)
        return np.clip(observation.joints[index] + steps, low, high)


def _seed(instruction: str, observation: Observation) -> int:
    digest = hashlib.sha256(instruction.encode())
    for name in sorted(observation.images):
        digest.update(np.ascontiguousarray(observation.images[name]))
    digest.update(np.ascontiguousarray(observation.joints, np.float64))
    return int.from_bytes(digest.digest()[:16], "big")

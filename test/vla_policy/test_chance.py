"""The random policy: within the limits, fit for the action kind, and decided by what it is told and sees first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from policies import observation, tabletop

from vla_policy.chance import RandomPolicy
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError
from vla_policy.resources import find_contract
from vla_policy.types import Observation

CONTRACT = tabletop()


def play(policy: RandomPolicy, instruction: str, first: Observation) -> np.ndarray:
    policy.reset(instruction)
    return np.concatenate([policy.step(seen).values for seen in (first, *map(observation, range(5, 30)))])


def test_an_episode_follows_from_its_words_and_its_first_sight() -> None:
    first, policy = observation(1), RandomPolicy(CONTRACT)
    rows = play(policy, "open the drawer", first)
    play(policy, "close the drawer", observation(2))
    later = dataclasses.replace(first, stamp_ns=first.stamp_ns + 1)
    np.testing.assert_array_equal(rows, play(policy, "open the drawer", later))
    np.testing.assert_array_equal(rows, play(RandomPolicy(CONTRACT), "open the drawer", first))
    assert not np.array_equal(rows, play(policy, "close the drawer", first))
    assert not np.array_equal(rows, play(policy, "open the drawer", observation(2)))


def test_chance_stays_within_the_limits() -> None:
    rows = play(RandomPolicy(CONTRACT), "lift", observation(3))
    assert np.linalg.norm(rows[:, :3], axis=1).max() <= CONTRACT.limits.linear_velocity_m_s * 0.05
    assert set(rows[:, 6]) == {0.0, 1.0}


def test_chance_fits_the_action_kind_or_says_why_not() -> None:
    so101, franka = (load_contract(find_contract(name)) for name in ("so101", "franka"))
    seen = Observation(0, {}, np.zeros(len(so101.joints.names)), None)
    assert RandomPolicy(so101).step(seen).values.shape == (4, len(so101.action_names))
    with pytest.raises(ConfigError, match="contract franka takes poses; use its contract of relative actions"):
        RandomPolicy(franka)

"""Who acts: experts, chance, policy servers, and policies that are blinded or told the opposite."""

from __future__ import annotations

import numpy as np
import pytest

from sim_bridges.evaluation.agents import describe, make_policy
from sim_bridges.evaluation.controls import CONTROLS, swapped
from sim_bridges.rollout import rollout
from sim_bridges.tabletop.sim import TabletopSim
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, RemoteError
from vla_policy.resources import find_contract
from vla_policy.types import ActionChunk, Observation

CONTRACT = load_contract(find_contract("tabletop"))


def observation() -> Observation:
    images = {"static": np.full((4, 4, 3), 7, np.uint8)}
    return Observation(5, images, np.zeros(8), None)


class Listening:
    """Remembers what it was told and shown."""

    period_ns = 100
    timings = {"model": 1.0}

    def reset(self, instruction: str) -> None:
        self.told = instruction

    def step(self, seen: Observation, run_id: int = 1) -> ActionChunk:
        self.seen = seen
        return ActionChunk(seen.stamp_ns, 100, np.zeros((1, 7)), 1, run_id)


def test_the_expert_is_a_policy_like_any_other() -> None:
    sim = TabletopSim()
    expert = make_policy("expert", "tabletop", sim, CONTRACT)
    assert rollout(sim, expert, CONTRACT, "press_button", 3, 8.0).success
    sim.close()


def test_grey_images_hide_everything() -> None:
    inner = Listening()
    policy = CONTROLS["grey"](inner)
    policy.reset("lift the red block")
    policy.step(observation())
    assert inner.told == "lift the red block" and set(inner.seen.images["static"].ravel()) == {127}
    assert (policy.period_ns, policy.timings) == (100, {"model": 1.0})


def test_swapped_words_are_the_opposite() -> None:
    inner = Listening()
    CONTROLS["swapped"](inner).reset("push the red block to the left")
    assert inner.told == "push the green block to the right"
    assert swapped("open the drawer") == "close the drawer"
    assert swapped("press the button") == "press the button"
    assert swapped("stack the red block on the blue block") == "stack the green block on the yellow block"


def test_who_cannot_act_is_named() -> None:
    with pytest.raises(ConfigError, match="got 'tabeltop', expected a path or a name in policies"):
        describe("tabeltop")
    with pytest.raises(RemoteError, match="no policy server answered"):
        make_policy("ws://127.0.0.1:9", "tabletop", None, CONTRACT)
    assert len(describe("tabletop")["bundle"]) == 8

"""Rows under way in; chunks that go on from them out: exact where frozen, smooth after, and nothing else changed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from policies import bundle, observation
from torch import Tensor, nn

from vla_policy.model.heads.inpainting import Goal, Inpainting, soft_mask
from vla_policy.model.registry import HEADS, resolve
from vla_policy.policy import Policy, step_together
from vla_policy.types import InFlight

CHUNK, EXECUTED = 16, 4
SAMPLED = ("flow", "diffusion")


def policy(head: str) -> Policy:
    made = Policy(bundle(action_head=head, action_chunk_size=CHUNK, execute_rows=EXECUTED,
                         head_options={"width": 16, "layers": 1, "heads": 2, "denoiser_size": 32}))
    made.reset("lift the red block")
    return made


def in_flight(made: Policy, frozen: int, seed: int = 0) -> InFlight:
    """Rows of the units and sizes that the policy gives, but others."""
    rng = np.random.default_rng(seed)
    low, high = np.array(made.bundle.action_normalizer.low), np.array(made.bundle.action_normalizer.high)
    arm = rng.uniform(low, high, (CHUNK - EXECUTED, 6))
    return InFlight(np.column_stack([arm, np.ones(len(arm))]), frozen)


def test_the_mask_is_that_of_the_paper() -> None:
    rows, frozen = 6, 2  # H - s rows left of the chunk before, d of them frozen
    mask = soft_mask(rows, frozen, 8).tolist()
    shares = [(rows - row) / (rows - frozen + 1) for row in range(frozen, rows)]
    assert mask[:2] == [1.0, 1.0] and mask[6:] == [0.0, 0.0]
    assert mask[2:6] == pytest.approx([share * (math.exp(share) - 1) / (math.e - 1) for share in shares])
    assert sorted(mask, reverse=True) == mask


@pytest.mark.parametrize("head", SAMPLED)
def test_nothing_in_flight_is_the_plain_sampler_bit_for_bit(head: str) -> None:
    plain, other = policy(head), policy(head)
    for index in range(3):
        expected = plain.step(observation(index))
        np.testing.assert_array_equal(other.step(observation(index), 1, None).values, expected.values)
        assert np.isfinite(expected.values).all()


@pytest.mark.parametrize("head", SAMPLED)
@pytest.mark.parametrize("frozen", [1, 5, CHUNK - EXECUTED])
def test_frozen_rows_are_those_in_flight_gripper_too(head: str, frozen: int) -> None:
    made = policy(head)
    before = in_flight(made, frozen)
    chunk = made.step(observation(0), 1, before)
    assert chunk.values.shape == (CHUNK, 7) and np.isfinite(chunk.values).all()
    np.testing.assert_array_equal(chunk.values[:frozen], before.values[:frozen])


def test_the_rest_is_pulled_towards_what_was_meant_and_ever_less() -> None:
    made, plain = policy("flow"), policy("flow")
    before = in_flight(made, 2)
    guided, free = made.step(observation(0), 1, before).values, plain.step(observation(0)).values
    scale = made._codec.encode
    rows = len(before.values)

    def distance(values: np.ndarray, start: int, stop: int) -> float:
        return float(np.abs(scale(values[start:stop])[0] - scale(before.values[start:stop])[0]).mean())

    assert distance(guided, 2, 5) < 0.5 * distance(free, 2, 5)
    near, far = (2, 5), (rows - 3, rows)
    assert distance(guided, *near) / distance(free, *near) < distance(guided, *far) / distance(free, *far)


def test_diffusion_is_pulled_too() -> None:
    made, plain = policy("diffusion"), policy("diffusion")
    before = in_flight(made, 2)
    aim = made._codec.encode(before.values[2:5])[0]
    guided, free = (made._codec.encode(chunk.values[2:5])[0]
                    for chunk in (made.step(observation(0), 1, before), plain.step(observation(0))))
    assert np.abs(guided - aim).mean() < np.abs(free - aim).mean()


@pytest.mark.parametrize("head", SAMPLED)
def test_robots_of_a_batch_go_on_each_from_its_own_rows(head: str) -> None:
    """Two of three have rows in flight, of different lengths; as single steps up to rounding."""
    alone, first = [policy(head) for _ in range(3)], policy(head)
    together = [first, *(first.sibling() for _ in range(2))]
    for robot in together[1:]:
        robot.reset("lift the red block")
    under_way = [in_flight(first, 2, seed=1), None, in_flight(first, 5, seed=2)]
    chunks = step_together(together, [observation(index) for index in range(3)], None, under_way)
    for index, (chunk, robot) in enumerate(zip(chunks, alone, strict=True)):
        expected = robot.step(observation(index), 1, under_way[index]).values
        np.testing.assert_allclose(chunk.values, expected, atol=1e-6)


class Straight(nn.Module):
    """A flow whose every path leads to `aim`, whatever the features: its Jacobian is known."""

    def __init__(self, aim: Tensor) -> None:
        super().__init__()
        self.aim = aim

    def forward(self, noisy: Tensor, time: Tensor, features: Tensor) -> Tensor:
        return self.aim - noisy + 0.0 * time[..., None]


def test_guidance_is_its_formula() -> None:
    """Flow whose guess at time t is A + (1 - t)(aim - A), of Jacobian t: equation 2 of the paper by hand."""
    aim, rows = torch.tensor([0.5, -0.5]), torch.tensor([[1.0, 1.0]])
    plan = Inpainting.of([Goal(rows.numpy(), 1)], 1)
    point, time = torch.tensor([[[0.2, 0.4]]]), 0.6
    clean = plan.guided(lambda at: at + (1 - time) * Straight(aim)(at, torch.tensor([[time]]), at), point, time)
    guess = point + (1 - time) * (aim - point)
    ratio = (1 - time) ** 2 / (time**2 + (1 - time) ** 2)
    weight = min(5.0, (1 - time) / (time * ratio))
    torch.testing.assert_close(clean, guess + (1 - time) * weight * time * (rows - guess))


def test_the_words_of_a_refusal_name_the_heads_that_inpaint() -> None:
    assert [name for name in HEADS if resolve(HEADS, name, "action_head").inpaints] == ["diffusion", "flow"]

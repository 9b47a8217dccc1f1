"""Hidden states and targets in; out: each head's actions and losses are those of its formulae, masks hold,
noise is fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from policies import tabletop
from torch import Tensor, nn

from vla_policy.action.bins import BINS, bin_centres, from_bins, to_bins, token_ids
from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionShape, Reading
from vla_policy.model.heads.discrete import DiscreteHead
from vla_policy.model.heads.generative import GenerativeHead
from vla_policy.model.heads.losses import ActionTargets, LossPart, LossWeights
from vla_policy.model.registry import HEADS, resolve
from vla_policy.model.vla import build_model
from vla_policy.strict import parse

WIDTH, FRAMES, CHUNK, ARM = 8, 2, 3, 2
SHAPE = ActionShape(ARM, CHUNK, has_gripper=True)
ROWS = torch.tensor([[[True] * CHUNK, [True, False, False]]])


def config(**changes: object) -> ModelConfig:
    data = {"action_chunk_size": CHUNK, "execute_rows": 1, "history_length": FRAMES} | changes
    return parse(ModelConfig, data, "model", ConfigError)


def head(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    formulation = "video" if name in ("fc", "discrete") else "policy_head"
    made = config(action_head=name, formulation=formulation, head_options=options)
    return resolve(HEADS, name, "action_head")(made, WIDTH, SHAPE)


def reading(queries: int = 1) -> Reading:
    """Made-up hidden states; those of tokens are the tokens."""
    torch.manual_seed(1)
    first = torch.randn(1, FRAMES, queries, WIDTH)
    words = nn.Embedding(300, WIDTH)
    return Reading(lambda tokens: first if tokens is None else torch.cat([first, tokens], 2), words)


def targets() -> ActionTargets:
    torch.manual_seed(2)
    gripper = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]])
    return ActionTargets(torch.rand(1, FRAMES, CHUNK, ARM) * 2 - 1, gripper, ROWS)


def test_bins_are_those_of_robovlms() -> None:
    values = np.concatenate([np.linspace(-1.2, 1.2, 1001), np.linspace(-1, 1, BINS)])
    edges = torch.linspace(-1, 1, BINS).numpy()
    clipped = np.clip(values.astype(np.float32), -1, 1)
    digits = np.digitize(clipped, edges)
    assert to_bins(torch.from_numpy(values)).tolist() == (digits - 1).tolist()
    centres = (edges[:-1] + edges[1:]) / 2
    decoded = from_bins(torch.from_numpy(digits - 1)).numpy()
    np.testing.assert_allclose(decoded, centres[np.clip(digits - 1, 0, 254)])
    assert np.abs(decoded - clipped).max() <= 1 / 255 + 1e-6


def test_action_tokens_are_the_last_of_the_vocabulary() -> None:
    assert token_ids(1000).tolist() == list(range(999, 743, -1))
    assert token_ids(1000, reserved=10)[0] == 989


@pytest.mark.parametrize("reserved", [0, 10])
def test_action_tokens_are_none_of_the_words(reserved: int) -> None:
    words = 20
    made = config(formulation="one_step", history_length=1, action_head="discrete",
                  head_options={"reserved": reserved})
    model = build_model(made, tabletop(), words)
    ids = token_ids(len(model.backbone.word_embedding.weight), reserved)
    assert words <= ids.min() and len(ids.unique()) == BINS


@pytest.mark.parametrize("name", HEADS)
def test_rows_that_do_not_count_change_neither_loss_nor_gradient(name: str) -> None:
    module, aims = head(name), targets()
    seen = reading(CHUNK * SHAPE.columns if name == "discrete" else 1)
    results = []
    for padding in (0.7, math.nan):
        arm = torch.where(ROWS[..., None], aims.arm_BWKA, padding)
        gripper = torch.where(ROWS, aims.gripper_BWK, padding)
        torch.manual_seed(3)
        loss = LossWeights().total(module.loss(seen, ActionTargets(arm, gripper, ROWS), LossWeights()))
        module.zero_grad()
        loss.backward()
        results.append([loss, *(weight.grad for weight in module.parameters() if weight.grad is not None)])
    assert all(torch.isfinite(value).all() for value in results[1])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_pose_and_gripper_losses_are_their_formulae() -> None:
    module, aims, seen = head("fc"), targets(), reading()
    arm, logits = module.decode(seen)
    parts = module.loss(seen, aims, LossWeights(pose="mse"))
    error = (arm - aims.arm_BWKA)[ROWS]
    torch.testing.assert_close(parts["pose"].mean, error.square().mean())
    huber = torch.where(error.abs() < 1, 0.5 * error.square(), error.abs() - 0.5).mean()
    torch.testing.assert_close(module.loss(seen, aims, LossWeights())["pose"].mean, huber)
    chance, aim = logits.sigmoid()[ROWS], aims.gripper_BWK[ROWS]
    entropy = -(aim * chance.log() + (1 - aim) * (1 - chance).log()).mean()
    torch.testing.assert_close(parts["gripper"].mean, entropy)
    weights = LossWeights(pose_weight=2.0, gripper_weight=0.3, grounding_weight=0.7)
    total = 2.0 * parts["pose"].mean + 0.3 * parts["gripper"].mean + 0.7 * torch.tensor(5.0)
    torch.testing.assert_close(weights.total(parts | {"place": LossPart(torch.tensor(10.0), torch.tensor(2))}), total)


@pytest.mark.parametrize("name", ["diffusion", "flow"])
def test_sampling_is_the_same_every_time_and_follows_its_seed(name: str) -> None:
    features = reading().feature
    first = head(name, seed=5)
    again, other = head(name, seed=5), head(name, seed=6)
    torch.manual_seed(9)  # the state of the global generator must not count
    assert torch.equal(first(features)[0], again(features)[0])
    assert not torch.equal(first(features)[0], other(features)[0])


class Oracle(nn.Module):
    """Knows the action: as the clean chunk (diffusion), or as the straight way to it from where one is
    (flow).
    """

    def __init__(self, action: Tensor, kind: str) -> None:
        super().__init__()
        self.action, self.kind = action, kind

    def forward(self, noisy: Tensor, time: Tensor, features: Tensor) -> Tensor:
        if self.kind == "diffusion":
            return self.action.expand_as(noisy)
        return (self.action - noisy) / (1 - time[..., None])


@pytest.mark.parametrize("name", ["diffusion", "flow"])
def test_a_perfect_denoiser_gives_the_action(name: str) -> None:
    module: GenerativeHead = head(name)
    action = torch.linspace(-0.9, 0.9, CHUNK * ARM)
    module.denoiser = Oracle(action, name)
    sampled = module(reading().feature)[0]
    torch.testing.assert_close(sampled[0, 0].flatten(), action, atol=1e-4, rtol=0)


def test_discrete_actions_are_the_likeliest_bins_and_the_odds_of_open() -> None:
    module: DiscreteHead = head("discrete")
    logits = torch.full((1, 1, CHUNK * SHAPE.columns, BINS), -20.0)
    logits[..., 7] = 5.0
    logits[0, 0, 2, 7], logits[0, 0, 2, 3], logits[0, 0, 2, 250] = -20.0, math.log(0.2), math.log(0.8)
    arm, gripper = module(logits)
    torch.testing.assert_close(arm, torch.full_like(arm, bin_centres()[7]))
    torch.testing.assert_close(gripper[0, 0, 0], torch.tensor(math.log(0.8 / 0.2)), atol=1e-3, rtol=0)
    assert (gripper[0, 0, 1:] < -3).all()


def test_decoding_is_constrained_to_the_action_tokens() -> None:
    module, seen = head("discrete"), reading(CHUNK * SHAPE.columns)
    before = module.decode(seen)[0]
    with torch.no_grad():
        seen.word_embedding.weight[: 300 - BINS] = 1e3 * seen.hidden(None)[0, 0, 0]
    assert torch.equal(module.decode(seen)[0], before)


def test_written_tokens_are_what_the_next_is_read_from() -> None:
    """On a causal backbone, the true tokens of its own output lead to that very output."""
    made = config(backbone="kosmos", backbone_options={"weights": "random-tiny"}, formulation="one_step",
                  image_size=32, text_length=4, history_length=1, action_head="discrete",
                  head_options={"decoding": "autoregressive"})
    torch.manual_seed(0)
    model = build_model(made, tabletop(), 20).eval()
    window = model._read(torch.zeros(1, 1, 2, 32, 32, 3, dtype=torch.uint8), torch.zeros(1, 1, 9),
                         torch.tensor([[3, 4, 5, 0]]), torch.tensor([[True, True, True, False]]))
    with torch.inference_mode():
        written = _greedy(model.head, window)
        forced = model.head._logits(window, model.head._embed(window, written[..., :-1])).argmax(-1)
    assert torch.equal(written, forced)
    assert written.shape == (1, 1, CHUNK * 7)
    assert len(written.unique()) > 1


def _greedy(module: DiscreteHead, window: Reading) -> Tensor:
    """The bins that decoding writes."""
    kept: list[Tensor] = []
    forward, module.forward = module.forward, lambda logits: kept.append(logits) or forward(logits)
    module.decode(window)
    del module.forward
    return kept[0].argmax(-1)


@pytest.mark.parametrize("name", HEADS)
def test_a_part_is_a_sum_over_the_count_that_is_known_beforehand(name: str) -> None:
    aims = targets()
    parts = head(name).loss(reading(CHUNK * SHAPE.columns if name == "discrete" else 1), aims, LossWeights())
    assert parts and all(part.count == aims.counts[key] for key, part in parts.items())
    assert aims.counts["place"] == ROWS.any(-1).sum() < aims.counts["pose"] == ROWS.sum()

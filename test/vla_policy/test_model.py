"""Images, states and sentences in; out: streaming equals windowed, padding is harmless, gradients flow."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from policies import SENTENCES, live_model, model_file, tabletop
from torch import Tensor, nn

from vla_policy.engine.session import FrameRing
from vla_policy.model.backbones.base import Backbone, ImageProcessor
from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.losses import ActionTargets, LossWeights
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel, build_model

BATCH, WINDOW, STATE = 2, 4, 10
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}
TOKENIZER = Tokenizer.build(SENTENCES)
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def model() -> VLAModel:
    return live_model(model_file(), tabletop(), TOKENIZER.vocabulary_size)


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (BATCH, WINDOW, 2, 32, 32, 3), dtype=torch.uint8, generator=generator)
    state = torch.randn(BATCH, WINDOW, STATE, generator=generator)
    ids, mask = TOKENIZER.encode_batch(["lift the red block", "open the drawer"], 8)
    return images, state, torch.from_numpy(ids), torch.from_numpy(mask)


def test_shapes(model: VLAModel, inputs: Inputs) -> None:
    output = model(*inputs)
    assert output.arm_BWKA.shape == (BATCH, WINDOW, 8, 6)
    assert output.gripper_BWK.shape == (BATCH, WINDOW, 8)
    assert output.grounding_BW3.shape == (BATCH, WINDOW, 3)


@pytest.mark.parametrize("changes", [{}, {"action_head": "fc", "head_options": {}, "history_length": 1},
                                     {"head_options": {"layers": 2}}, {"cameras": ["wrist"]},
                                     {"proprioception": False, "proprioception_joints": []}])
@torch.inference_mode()
def test_streaming_equals_windowed(changes: dict[str, object], inputs: Inputs) -> None:
    """Frame by frame, each encoded once and without text padding, gives what the window gives at once."""
    model = live_model(model_file(**changes), tabletop(), TOKENIZER.vocabulary_size)
    window = model.config.history_length
    images, state, ids, mask = (inputs[0][:1, :window, : len(model.config.cameras)], inputs[1][:1, :window],
                                inputs[2][:1], inputs[3][:1])
    state = state if model.config.proprioception else state[..., :0]
    windowed = model(images, state, ids, mask)
    text_BLD, ring = model.embed_text(ids[:, mask[0]]), FrameRing(window)
    for frame in range(window):
        ring.push(model.encode_frame(images[:, frame], state[:, frame], text_BLD, mask[:, mask[0]]))
        arm_BKA, gripper_BK = model.act(ring.read(), text_BLD, mask[:, mask[0]])
        torch.testing.assert_close(arm_BKA, windowed.arm_BWKA[:, frame], **TOLERANCE)
        torch.testing.assert_close(gripper_BK, windowed.gripper_BWK[:, frame], **TOLERANCE)


@torch.inference_mode()
def test_padding_of_the_text_changes_nothing(model: VLAModel, inputs: Inputs) -> None:
    images, state, ids, mask = inputs
    garbage = torch.where(mask, ids, torch.full_like(ids, 3))
    expected = model(images, state, ids, mask)
    torch.testing.assert_close(model(images, state, garbage, mask).arm_BWKA, expected.arm_BWKA, **TOLERANCE)
    shorter = model(images[:1], state[:1], ids[:1, :4], mask[:1, :4])
    torch.testing.assert_close(shorter.arm_BWKA, expected.arm_BWKA[:1], **TOLERANCE)


@torch.inference_mode()
def test_padding_of_the_window_changes_no_real_frame(model: VLAModel, inputs: Inputs) -> None:
    images, state, ids, mask = inputs
    padded_images, padded_state = images.clone(), state.clone()
    padded_images[:, 2:], padded_state[:, 2:] = 255, 9.0
    expected, padded = model(*inputs), model(padded_images, padded_state, ids, mask)
    torch.testing.assert_close(padded.arm_BWKA[:, :2], expected.arm_BWKA[:, :2], **TOLERANCE)
    assert not torch.allclose(padded.arm_BWKA[:, 2:], expected.arm_BWKA[:, 2:], **TOLERANCE)


@torch.inference_mode()
@pytest.mark.parametrize("which", ["image of each camera", "state", "text", "history"])
def test_every_input_counts(model: VLAModel, inputs: Inputs, which: str) -> None:
    changed = [value.clone() for value in inputs]
    newest = model(*inputs).arm_BWKA[:, -1]
    if which == "image of each camera":
        for camera in range(2):
            changed[0] = inputs[0].clone()
            changed[0][:, -1, camera] = 255 - changed[0][:, -1, camera]
            assert not torch.allclose(model(*changed).arm_BWKA[:, -1], newest, atol=1e-4)
        return
    if which == "state":
        changed[1][:, -1] += 1
    elif which == "text":
        changed[2][:, 0] = 2
    else:
        changed[1][:, 0] += 1
    assert not torch.allclose(model(*changed).arm_BWKA[:, -1], newest, atol=1e-5)


@torch.inference_mode()
def test_a_fresh_lstm_head_acts_on_the_newest_frame_alone(inputs: Inputs) -> None:
    model = build_model(model_file().model, tabletop(), TOKENIZER.vocabulary_size).eval()
    changed = inputs[1].clone()
    changed[:, 0] += 1
    torch.testing.assert_close(model(inputs[0], changed, *inputs[2:]).arm_BWKA[:, -1],
                               model(*inputs).arm_BWKA[:, -1], **TOLERANCE)


def test_gradients_reach_every_weight_and_one_batch_is_learned(inputs: Inputs) -> None:
    torch.manual_seed(0)
    model = build_model(model_file().model, tabletop(), TOKENIZER.vocabulary_size)
    generator = torch.Generator().manual_seed(2)
    arm = torch.rand(BATCH, WINDOW, 8, 6, generator=generator) * 2 - 1
    gripper = torch.randint(0, 2, (BATCH, WINDOW, 8), generator=generator).float()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        output = model(*inputs)
        loss = (nn.functional.mse_loss(output.arm_BWKA, arm) + output.grounding_BW3.square().mean()
                + nn.functional.binary_cross_entropy_with_logits(output.gripper_BWK, gripper))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert losses[-1] < 0.5 * losses[0]


def test_pointing_uses_the_sentence(model: VLAModel, inputs: Inputs) -> None:
    images, state, ids, mask = inputs
    places = model.ground(images[:, 0], state[:, 0], ids, mask)
    assert places.shape == (BATCH, 3)
    torch.testing.assert_close(places, model(*inputs).grounding_BW3[:, 0], **TOLERANCE)
    assert not torch.allclose(model.ground(images[:, 0], state[:, 0], ids.flip(0), mask.flip(0)), places)


@pytest.mark.parametrize("images", [torch.zeros(1, 2, 16, 16, 3, dtype=torch.uint8),
                                    torch.zeros(1, 2, 32, 32, 3)])
def test_wrong_images_are_refused(model: VLAModel, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected torch.uint8 \(..., 32, 32, 3\)"):
        model.encode_frame(images, torch.zeros(1, STATE), torch.zeros(1, 1, 32), torch.ones(1, 1).bool())


def test_pixels_are_scaled_channel_by_channel() -> None:
    scale = ImageProcessor(1, mean=(0.5, 0.0, 0.2), std=(0.5, 1.0, 0.1))
    pixels = scale(torch.tensor([[[255, 51, 102]]], dtype=torch.uint8))
    np.testing.assert_allclose(pixels.flatten(), [1.0, 0.2, 2.0], rtol=1e-6)


def test_the_faces_of_a_backbone(model: VLAModel) -> None:
    backbone = model.backbone
    assert backbone.hidden_size == backbone.word_embedding.embedding_dim == 32
    assert backbone.image_processor.size == 32
    parts = {id(weight) for part in (backbone.text_tower, backbone.vision_tower, backbone.word_embedding)
             for weight in part.parameters()}
    assert parts < {id(weight) for weight in backbone.model.parameters()}


class Sequence(Backbone):
    """A backbone that puts image tokens before the text, as most pretrained ones do: all it needs."""

    hidden_size = 8
    text_tower = property(lambda self: self.vlm)
    word_embedding = vision_tower = None

    @classmethod
    def create(cls, config: ModelConfig, vocabulary_size: int) -> Sequence:
        return cls(Tower(), ImageProcessor(4))

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        return pixels_M3SS.flatten(2)[..., :8]


class Tower(nn.Module):
    """Hands its input through and remembers what it was called with."""

    def forward(self, **arguments: Tensor) -> SimpleNamespace:
        self.seen = arguments
        return SimpleNamespace(last_hidden_state=arguments["inputs_embeds"])


def test_default_sequence_of_a_backbone_hides_padding_and_counts_real_tokens() -> None:
    backbone = Sequence.create(model_file().model, 0)
    visual, queries = backbone.encode_images(torch.rand(1, 2, 3, 4, 4)), torch.rand(1, 2, 8)
    assert visual.shape == (1, 6, 8)
    mask = torch.tensor([[True, False, False]])
    assert torch.equal(backbone.fuse(visual, torch.rand(1, 3, 8), mask, queries), queries)
    assert backbone.vlm.seen["attention_mask"].tolist() == [[1] * 7 + [0, 0, 1, 1]]
    assert backbone.vlm.seen["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 8]]


DISCRETE = {"formulation": "video", "action_head": "discrete", "action_space": "discrete", "head_options": {}}


@pytest.mark.parametrize("changes", [{}, DISCRETE])
def test_pointing_is_trained_from_the_reading_of_the_head(changes: dict[str, object], inputs: Inputs) -> None:
    """One pass of the text tower for both; places in padding reach neither loss nor gradient."""
    model = live_model(model_file(**changes), tabletop(), TOKENIZER.vocabulary_size)
    passes: list[nn.Module] = []
    model.backbone.text_tower.register_forward_hook(lambda module, *_: passes.append(module))
    rows = torch.ones(BATCH, WINDOW, 8, dtype=torch.bool)
    rows[1, 2:] = False
    arm, gripper, place = torch.zeros(BATCH, WINDOW, 8, 6), torch.zeros(BATCH, WINDOW, 8), torch.ones(BATCH, WINDOW, 3)
    totals, weights = [], LossWeights(grounding_weight=0.5)
    for in_padding in (0.0, float("nan")):
        place[1, 2:] = in_padding
        targets = ActionTargets(arm, gripper, rows, place)
        model.zero_grad()
        parts = model.loss(*inputs, targets, weights)
        total = weights.total(parts)
        total.backward()
        totals.append((total, model.grounding.weight.grad.clone()))
    assert all(torch.isfinite(one).all() and torch.equal(one, other) for one, other in zip(*totals, strict=True))
    guess = model(*inputs).grounding_BW3[rows.any(-1)]
    torch.testing.assert_close(parts["place"].mean, nn.functional.smooth_l1_loss(guess, torch.ones_like(guess)))
    passes.clear()
    without = model.loss(*inputs, ActionTargets(arm, gripper, rows), LossWeights())
    alone = len(passes)
    model.loss(*inputs, targets, weights)
    assert len(passes) == 2 * alone > 0 and "place" not in without

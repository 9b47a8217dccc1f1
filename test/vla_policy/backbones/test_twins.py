"""Twins of pretrained backbones in; out: what every backbone must keep, whatever it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from policies import tabletop
from safetensors.torch import load_model, save_model
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil
from twins import SIDE, WORDS, config, pixels, query_ids, text_ids, twin

from vla_policy.errors import ConfigError
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.vla import build_model

ROWS = ["gemma3", "idefics2", "idefics3", "internvl", "kosmos", "llava", "llava-next", "llava-onevision",
        "moondream", "paligemma", "paligemma-causal", "qwen-vl", "qwen2-vl", "qwen3-vl", "smolvlm"]
NAMES = [*ROWS, "flamingo", "florence2", "ofa"]  # the last have no row of all tokens
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}


@pytest.mark.parametrize("name", NAMES)
def test_a_twin_is_small_sees_reads_and_learns(name: str) -> None:
    backbone = twin(name)
    assert sum(weight.numel() for weight in backbone.parameters()) < 1_000_000
    text, mask = backbone.word_embedding(text_ids()), torch.ones_like(text_ids()).bool()
    queries = torch.randn(2, 3, backbone.hidden_size) * backbone.query_scale
    visual = backbone.encode_images(pixels())
    hidden = backbone.fuse(visual, text, mask, queries)
    assert hidden.shape == queries.shape
    assert visual.shape[-1] == backbone.visual_size
    for images, words in ((visual.flip(0), text), (visual, text.flip(0))):
        other = backbone.fuse(images, words, mask, queries)
        assert not torch.allclose(hidden, other, atol=1e-4)
    hidden.square().mean().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in backbone.vision_tower.parameters())
    seeing = {id(weight) for weight in backbone.vision_tower.parameters()}  # its last layers may idle
    assert all(weight.grad is not None for weight in backbone.text_tower.parameters()
               if weight.requires_grad and id(weight) not in seeing)


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing_and_black_images_count(name: str) -> None:
    backbone = twin(name)
    text, mask = backbone.word_embedding(text_ids()), torch.ones_like(text_ids()).bool()
    queries, visual = backbone.word_embedding(query_ids()), backbone.encode_images(pixels())
    mask[:, 4:] = False
    expected = backbone.fuse(visual, text[:, :4], mask[:, :4], queries)
    torch.testing.assert_close(backbone.fuse(visual, text, mask, queries), expected, **TOLERANCE)
    assert backbone.encode_images(torch.zeros_like(pixels())).shape == visual.shape


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_needs_no_checkpoint(name: str, tmp_path: Path) -> None:
    """The stored architecture, through JSON, gives the same model, into which the weights go strictly."""
    backbone = twin(name)
    save_model(backbone, str(tmp_path / "model.safetensors"))
    options = json.loads(json.dumps(backbone.stored_options())) | {"weights": "nobody/nothing"}
    again = resolve(BACKBONES, name, "backbone").create(config(name, backbone_options=options), WORDS).eval()
    assert load_model(again, str(tmp_path / "model.safetensors"), strict=False) == (set(), [])
    arguments = (backbone.word_embedding(text_ids()), torch.ones_like(text_ids()).bool(),
                 backbone.word_embedding(query_ids()))
    assert torch.equal(again.fuse(again.encode_images(pixels()), *arguments),
                       backbone.fuse(backbone.encode_images(pixels()), *arguments))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["kosmos", "paligemma"])
def test_weights_in_bfloat16(name: str) -> None:
    backbone, exact = twin(name, backbone_options={"dtype": "bfloat16"}), twin(name)
    assert backbone.word_embedding.weight.dtype == torch.bfloat16
    arguments = (torch.ones_like(text_ids()).bool(), torch.randn(2, 3, backbone.hidden_size))
    hidden, expected = (one.fuse(one.encode_images(pixels()), one.word_embedding(text_ids()), *arguments)
                        for one in (backbone, exact))
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, expected, atol=0.2, rtol=0.1)


@pytest.mark.parametrize("name", ROWS)
def test_a_sequence_longer_than_the_positions_is_refused(name: str) -> None:
    backbone = twin(name)
    tokens = torch.zeros(1, backbone.max_positions + 1, backbone.hidden_size)
    with pytest.raises(ConfigError, match="sequence of 2049 tokens, expected at most the backbone's 2048"):
        backbone.run(tokens, torch.ones(tokens.shape[:2]).bool(), torch.zeros(tokens.shape[:2]).bool())


def test_a_window_longer_than_the_positions_is_refused() -> None:
    window = 100
    made = config("kosmos", formulation="interleaved", action_head="fc", history_length=window, text_length=4)
    model = build_model(made, tabletop(), WORDS).eval()
    images = torch.zeros(1, window, 2, SIDE, SIDE, 3, dtype=torch.uint8)
    state = torch.zeros(1, window, 9)
    with pytest.raises(ConfigError, match="sequence of 2200 tokens, .* 2048 positions; lower history_length"):
        model(images, state, torch.ones(1, 4).long(), torch.ones(1, 4).bool())


@pytest.mark.parametrize(("name", "processor"), [
    ("kosmos", CLIPImageProcessorPil), ("llava", CLIPImageProcessorPil),
    ("paligemma", SiglipImageProcessorPil)])
def test_pixels_are_scaled_as_the_models_own_processor_does(name: str, processor: type) -> None:
    generator = torch.Generator().manual_seed(4)
    image = torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    scale = processor(do_resize=False, do_center_crop=False)
    theirs = scale(images=[image.numpy()], return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(twin(name).image_processor(image), theirs, atol=1e-5, rtol=0)

"""Backbones with token layouts of their own in; the hidden states of transformers out, bit by bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil
from twins import BATCH, CAMERAS, QUERIES, SIDE, pixels, query_ids, text_ids, twin

from vla_policy.errors import ConfigError
from vla_policy.model.backbones.base import Backbone
from vla_policy.model.backbones.patch_layout import flat_patches, patch_grid, rope_positions

QWEN = ["qwen-vl", "qwen2-vl", "qwen3-vl"]


def ours(backbone: Backbone, images: Tensor) -> Tensor:
    """Hidden states of the queries by our way, (B, Q, D)."""
    return backbone.fuse(backbone.encode_images(images), backbone.word_embedding(text_ids()),
                         torch.ones_like(text_ids()).bool(), backbone.word_embedding(query_ids()))


def theirs(backbone: Backbone, **inputs: Tensor) -> Tensor:
    """The last hidden states of the model's own forward."""
    seen: list[Tensor] = []
    hook = backbone.output_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone.vlm(use_cache=False, **inputs)
    hook.remove()
    return seen[0][:, -QUERIES:]


@torch.inference_mode()
@pytest.mark.parametrize("name", QWEN)
def test_patches_positions_and_deepstack_are_those_of_transformers(name: str) -> None:
    backbone, images = twin(name), pixels()[:, :1]
    count = backbone.encode_images(images).shape[1]
    lead, words = backbone.leading_tokens, text_ids()
    marks = torch.full((BATCH, count), backbone.vlm.config.image_token_id)
    ids = torch.cat([words[:, :lead], marks, words[:, lead:], query_ids()], 1)
    kinds = torch.zeros_like(ids)
    kinds[:, lead:lead + count] = 1
    vision = backbone.vlm.config.vision_config
    patches = flat_patches(images[:, 0], vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
    grid = patch_grid(BATCH, backbone.image_side * vision.spatial_merge_size)
    expected = theirs(backbone, input_ids=ids, pixel_values=patches, image_grid_thw=grid,
                      mm_token_type_ids=kinds, attention_mask=torch.ones_like(ids))
    assert (ours(backbone, images) - expected).abs().max() == 0.0


@torch.inference_mode()
def test_positions_of_several_images_with_text_and_padding_between_them() -> None:
    model = twin("qwen2-vl").vlm.model
    visual = torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0]] * 2).bool()
    mask = torch.ones_like(visual)
    mask[1, 6:8] = False
    expected, _ = model.get_rope_index(torch.zeros_like(visual).long(), visual.long(),
                                       torch.tensor([[1, 4, 4]] * 4), attention_mask=mask.long())
    assert torch.equal(rope_positions(mask, visual, 2)[:, mask], expected[:, mask])


def test_images_that_touch_stand_one_after_the_other() -> None:
    visual = torch.tensor([[1] * 8 + [0]]).bool()
    places = rope_positions(torch.ones_like(visual), visual, 2)
    assert places[:, 0].tolist() == [[0, 0, 0, 0, 2, 2, 2, 2, 4], [0, 0, 1, 1, 2, 2, 3, 3, 4],
                                     [0, 1, 0, 1, 2, 3, 2, 3, 4]]


def test_patches_are_those_of_the_models_own_processor() -> None:
    source = torch.Generator().manual_seed(4)
    image = torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8, generator=source)
    processor = Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, temporal_patch_size=2,
                                         min_pixels=SIDE * SIDE, max_pixels=SIDE * SIDE)
    expected = processor(images=[image.numpy()], return_tensors="pt")
    patches = flat_patches(twin("qwen-vl").image_processor(image)[None], 8, 2, 2)
    assert patch_grid(1, SIDE // 8).tolist() == expected.image_grid_thw.tolist()
    torch.testing.assert_close(patches, expected.pixel_values, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_cross_attention_is_that_of_transformers() -> None:
    backbone = twin("flamingo")
    ids = torch.cat([text_ids(), query_ids()], 1)
    expected = theirs(backbone, input_ids=ids, pixel_values=pixels(),
                      image_attention_mask=torch.ones(*ids.shape, CAMERAS))
    assert (ours(backbone, pixels()) - expected).abs().max() == 0.0


@torch.inference_mode()
def test_encoder_and_decoder_are_those_of_transformers() -> None:
    backbone, images = twin("florence2"), pixels()[:, :1]
    count = backbone.encode_images(images).shape[1]
    placeholders = torch.full((BATCH, count), backbone.vlm.config.image_token_id)
    expected = theirs(backbone, input_ids=torch.cat([placeholders, text_ids()], 1), pixel_values=images[:, 0],
                      decoder_input_ids=query_ids())
    assert (ours(backbone, images) - expected).abs().max() == 0.0


@pytest.mark.parametrize("name", ["flamingo", "florence2", "ofa"])
def test_a_text_longer_than_the_positions_is_refused(name: str) -> None:
    backbone = twin(name)
    text = torch.zeros(1, backbone.max_positions, backbone.hidden_size)
    visual = torch.zeros(1, 2, backbone.visual_size)
    with pytest.raises(ConfigError, match=f"at most the backbone's {backbone.max_positions} positions"):
        backbone.fuse(visual, text, torch.ones(text.shape[:2]).bool(), text[:, :QUERIES])


def test_weights_that_nobody_can_load_are_refused() -> None:
    with pytest.raises(ConfigError, match="take backbone florence2"):
        twin("ofa", backbone_options={"weights": "OFA-Sys/ofa-base"})

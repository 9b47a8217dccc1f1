"""The same tokens in, by our way and by the model's own forward: the same hidden states out, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from twins import BATCH, CAMERAS, QUERIES, SIDE, pixels, query_ids, text_ids, twin

from vla_policy.model.backbones.base import Backbone


def row_of_ids(backbone: Backbone, images: int) -> Tensor:
    """[beginning | image placeholders | text | queries] as ids, (B, T)."""
    lead, ids = backbone.leading_tokens, text_ids()
    placeholder = getattr(backbone.vlm.config, "image_token_id", 3)
    return torch.cat([ids[:, :lead], torch.full((BATCH, images), placeholder), ids[:, lead:], query_ids()], 1)


def is_image(backbone: Backbone, ids: Tensor, images: int) -> Tensor:
    flags = torch.zeros_like(ids)
    flags[:, backbone.leading_tokens: backbone.leading_tokens + images] = 1
    return flags


def plain(backbone: Backbone, ids: Tensor, images: int) -> dict[str, Any]:
    return {"pixel_values": pixels().flatten(0, 1)}


def grouped(backbone: Backbone, ids: Tensor, images: int) -> dict[str, Any]:
    return {"pixel_values": pixels()}


def kosmos(backbone: Backbone, ids: Tensor, images: int) -> dict[str, Any]:
    return plain(backbone, ids, images) | {"image_embeds_position_mask": is_image(backbone, ids, images),
                                           "attention_mask": torch.ones_like(ids)}


def prefix(backbone: Backbone, ids: Tensor, images: int) -> dict[str, Any]:
    return plain(backbone, ids, images) | {"token_type_ids": torch.zeros_like(ids)}


def suffix(backbone: Backbone, ids: Tensor, images: int) -> dict[str, Any]:
    return plain(backbone, ids, images) | {"token_type_ids": torch.ones_like(ids)}


def images_marked(backbone: Backbone, ids: Tensor, images: int) -> dict[str, Any]:
    return plain(backbone, ids, images) | {"token_type_ids": is_image(backbone, ids, images)}


def several_images(backbone: Backbone, ids: Tensor, images: int) -> dict[str, Any]:
    return {"pixel_values": pixels().reshape(BATCH * CAMERAS, 1, 3, SIDE, SIDE),
            "image_sizes": torch.full((BATCH * CAMERAS, 2), SIDE),
            "batch_num_images": torch.full((BATCH,), CAMERAS)}


def base_tiles(backbone: Backbone, ids: Tensor, images: int) -> dict[str, Any]:
    """The first tile of each image of two tiles, by the model's own encoder and packing."""
    model = backbone.vlm.model
    tiles = pixels().flatten(0, 1)[:, None].expand(-1, 2, -1, -1, -1)
    sizes = torch.full((BATCH * CAMERAS, 2), SIDE)
    both = model.get_image_features(tiles, sizes, vision_feature_layer=-2,
                                    vision_feature_select_strategy="default").pooler_output
    first = [tokens[: (SIDE // 16) ** 2][None] for tokens in both]
    packed, _ = model.pack_image_features(first, sizes, "default", model.image_newline)
    return {"mm_encoder_outputs": {"image": SimpleNamespace(pooler_output=packed)}}


REFERENCES: dict[str, Callable[[Backbone, Tensor, int], dict[str, Any]]] = {
    "gemma3": images_marked, "idefics2": grouped, "idefics3": grouped, "internvl": plain, "kosmos": kosmos,
    "llava": plain, "llava-next": base_tiles, "llava-onevision": several_images, "paligemma": prefix,
    "paligemma-causal": suffix,
    "smolvlm": grouped,
}


@torch.inference_mode()
@pytest.mark.parametrize("name", REFERENCES)
def test_hidden_states_are_those_of_transformers(name: str) -> None:
    backbone = twin(name)
    visual_BND = backbone.encode_images(pixels())
    ours = backbone.fuse(visual_BND, backbone.word_embedding(text_ids()),
                         torch.ones_like(text_ids()).bool(), backbone.word_embedding(query_ids()))
    images, seen = visual_BND.shape[1], []
    backbone.output_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ids = row_of_ids(backbone, images)
    backbone.vlm(input_ids=ids, use_cache=False, **REFERENCES[name](backbone, ids, images))
    assert (ours - seen[0][:, -QUERIES:]).abs().max() == 0.0

"""Weights laid out as moondream2 publishes them in; a model that computes what its code computes out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm
from twins import SIDE, pixels, query_ids, text_ids, twin

from vla_policy.errors import ConfigError
from vla_policy.model.backbones.base import Backbone
from vla_policy.model.backbones.moondream import load_published

WIDTH, INNER, PROJECTOR, HEADS, LAYERS, PATCH = 64, 128, 128, 4, 2, 16
ROTARY = WIDTH // HEADS // 2  # numbers of a head that are turned
Weights = dict[str, Tensor]


def published(words: int) -> Weights:
    """Random weights under the names of moondream2's model.safetensors."""
    source, cells = torch.Generator().manual_seed(5), (SIDE // PATCH) ** 2
    shapes: dict[str, tuple[int, ...]] = {"vision.pos_emb": (1, cells, WIDTH), "text.wte": (words, WIDTH)}
    linear = {"vision.patch_emb": (WIDTH, 3 * PATCH**2), "vision.proj_mlp.fc1": (PROJECTOR, 2 * WIDTH),
              "vision.proj_mlp.fc2": (WIDTH, PROJECTOR), "text.lm_head": (words, WIDTH)}
    norms = ["vision.post_ln", "text.post_ln"]
    for block in [f"{side}.blocks.{layer}" for side in ("vision", "text") for layer in range(LAYERS)]:
        linear |= {f"{block}.attn.qkv": (3 * WIDTH, WIDTH), f"{block}.attn.proj": (WIDTH, WIDTH),
                   f"{block}.mlp.fc1": (INNER, WIDTH), f"{block}.mlp.fc2": (WIDTH, INNER)}
        norms += [f"{block}.ln1", f"{block}.ln2"] if block.startswith("vision") else [f"{block}.ln"]
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    shapes["region.coord_features"] = (1, 4)
    return {f"model.{name}": torch.randn(shape, generator=source) * 0.2 for name, shape in shapes.items()}


class Reference:
    """moondream2's computation, from its weights by their names."""

    def __init__(self, weights: Weights) -> None:
        self.weights = {name.removeprefix("model."): value for name, value in weights.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return layer_norm(x, (WIDTH,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    def feed(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.fc2", gelu(self.linear(f"{name}.fc1", x), approximate="tanh"))

    def attend(self, name: str, x: Tensor, allowed: Tensor, turned: bool) -> Tensor:
        parts = self.linear(f"{name}.qkv", x).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        if turned:
            query, key = turn(query), turn(key)
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        mixed = scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ value
        return self.linear(f"{name}.proj", mixed.transpose(1, 2).flatten(2))

    def image(self, image_M3SS: Tensor) -> Tensor:
        patches = image_M3SS.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5)
        x = self.linear("vision.patch_emb", patches.flatten(3).flatten(1, 2)) + self.weights["vision.pos_emb"]
        everything = torch.ones(x.shape[1], x.shape[1]).bool()
        for layer in range(LAYERS):
            block = f"vision.blocks.{layer}"
            x = x + self.attend(f"{block}.attn", self.norm(f"{block}.ln1", x, 1e-6), everything, False)
            x = x + self.feed(f"{block}.mlp", self.norm(f"{block}.ln2", x, 1e-6))
        x = self.norm("vision.post_ln", x, 1e-6)
        return self.feed("vision.proj_mlp", torch.cat([x, x], -1))

    def text(self, x: Tensor, prefix: int) -> Tensor:
        """Hidden states of embedded tokens, the first `prefix` of which see each other."""
        allowed = torch.ones(x.shape[1], x.shape[1]).bool().tril()
        allowed[:prefix, :prefix] = True
        for layer in range(LAYERS):
            block = f"text.blocks.{layer}"
            normed = self.norm(f"{block}.ln", x, 1e-5)
            x = x + self.attend(f"{block}.attn", normed, allowed, True) + self.feed(f"{block}.mlp", normed)
        return self.norm("text.post_ln", x, 1e-5)


def turn(heads: Tensor) -> Tensor:
    """Rotary positions on the first half of each head: (a, b) of its two quarters turn together."""
    angles = torch.outer(torch.arange(heads.shape[2]), 10000.0 ** (-torch.arange(0, ROTARY, 2) / ROTARY))
    first, second, rest = heads.split([ROTARY // 2, ROTARY // 2, heads.shape[-1] - ROTARY], -1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine, rest], -1)


def loaded() -> tuple[Backbone, Weights]:
    backbone = twin("moondream")
    weights = published(backbone.word_embedding.num_embeddings)
    load_published(backbone.vlm, weights, "test")
    return backbone, weights


@torch.inference_mode()
def test_published_weights_compute_what_its_code_does() -> None:
    backbone, weights = loaded()
    reference, images = Reference(weights), pixels()[:, :1]
    words, queries = (weights["model.text.wte"][ids] for ids in (text_ids(), query_ids()))
    visual = reference.image(images[:, 0])
    torch.testing.assert_close(backbone.encode_images(images), visual, atol=1e-4, rtol=1e-4)
    row = torch.cat([words[:, :1], visual, words[:, 1:], queries], 1)
    expected = reference.text(row, 1 + visual.shape[1])[:, -queries.shape[1]:]
    hidden = backbone.fuse(backbone.encode_images(images), words, torch.ones(words.shape[:2]).bool(), queries)
    torch.testing.assert_close(hidden, expected, atol=1e-4, rtol=1e-4)
    logits = backbone.output_embedding(hidden)
    torch.testing.assert_close(logits, reference.linear("text.lm_head", expected), atol=1e-4, rtol=1e-4)


def test_weights_of_something_else_are_refused_by_name() -> None:
    backbone, weights = loaded()
    del weights["model.text.post_ln.bias"]
    weights |= {"model.text.blocks.0.lora.weight": torch.zeros(1), "model.text.wte": torch.zeros(3, WIDTH),
                "model.vision.blocks.7.ln1.weight": torch.zeros(1)}
    with pytest.raises(ConfigError) as refusal:
        load_published(backbone.vlm, weights, "folder")
    for part in ("folder is not moondream2 as published",
                 "missing ['language_model.model.final_layernorm.bias']",
                 "'model.text.blocks.0.lora.weight'", "'vision_tower.encoder.layers.7.layer_norm1.weight'",
                 "of another size ['language_model.model.embed_tokens.weight']"):
        assert part in str(refusal.value)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds nothing, expected a checkpoint of model_type 'moondream'"):
        twin("moondream", backbone_options={"weights": str(tmp_path)})
    with pytest.raises(ConfigError, match="device_map: got 'auto', expected none"):
        twin("moondream", backbone_options={"weights": str(tmp_path), "device_map": "auto"})


@torch.inference_mode()
def test_images_of_a_frame_see_each_other_and_nothing_looks_ahead_of_its_frame() -> None:
    """Two frames in one row, each [beginning | two image tokens | three others]."""
    backbone = twin("moondream")
    tokens = torch.randn(1, 12, WIDTH, generator=torch.Generator().manual_seed(6))
    visual = torch.tensor([[0, 1, 1, 0, 0, 0] * 2]).bool()
    before = backbone.run(tokens, torch.ones_like(visual), visual)
    for changed, first_moved in ((2, 0), (7, 7), (8, 7), (10, 10)):
        other = tokens.clone()
        other[:, changed] *= -1
        difference = (backbone.run(other, torch.ones_like(visual), visual) - before).abs().amax((0, 2))
        assert (difference > 1e-5).nonzero()[0] == first_moved

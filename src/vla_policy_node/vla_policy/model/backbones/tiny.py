"""Camera images and a sentence in, hidden states out: a small vision-language model for CPUs.

A convolutional stem per camera gives visual tokens with 2-D sine positions. They serve as keys and values
only (as in Flamingo, https://arxiv.org/abs/2204.14198), so that the few text, state and action tokens carry
the cost of attention.

Shapes: B batch, V cameras, S image side, C visual width, N visual tokens, T tokens (text and queries), L
text, Q queries, D width.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from vla_policy.errors import ConfigError
from vla_policy.model.backbones.base import Backbone, ImageProcessor, Part
from vla_policy.model.config import ModelConfig
from vla_policy.strict import StrictModel

PATCH = 8  # pixels a visual token covers
NORM_GROUPS = 8
OCTAVES = (1, 2, 4)


class TinyBackbone(Backbone):
    """The small vision-language model behind the faces of every backbone."""

    interleaves = False  # images are looked at from beside the sequence
    causal = False

    class Options(StrictModel):
        """Widths must divide by `heads`, the visual width also by 8 (its normalisation groups)."""

        width: Annotated[int, Field(ge=8)] = 128
        visual_width: Annotated[int, Field(ge=8, multiple_of=NORM_GROUPS)] = 64
        layers: Annotated[int, Field(ge=1)] = 3
        heads: Annotated[int, Field(ge=1)] = 4

    @classmethod
    def create(cls, config: ModelConfig, vocabulary_size: int) -> TinyBackbone:
        """A randomly initialised model; its weights come from training or from a bundle."""
        options = cls.Options(**config.backbone_options)
        vlm = TinyVlm(options, len(config.cameras), config.image_size // PATCH, vocabulary_size,
                      config.text_length)
        return cls(vlm, ImageProcessor(config.image_size))

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse images that do not fall into whole patches and widths that do not into whole heads."""
        if config.image_size % PATCH:
            raise ConfigError(f"image_size: got {config.image_size}, expected a multiple of {PATCH} for "
                              f"backbone tiny; use {max(1, round(config.image_size / PATCH)) * PATCH}")
        options = cls.Options(**config.backbone_options)
        if options.width % options.heads:
            raise ConfigError(f"backbone_options.width: got {options.width} for {options.heads} heads, "
                              "expected a multiple; use "
                              f"{-(-options.width // options.heads) * options.heads}")

    def add_words(self, count: int) -> None:
        """The new words begin near the middle of the known ones, each at a place of its own (torch's random state)."""
        known = self.vlm.words.weight.data
        new = known.mean(0) + 0.5 * known.std(0) * torch.randn(count, known.shape[1], dtype=known.dtype)
        self.vlm.words = nn.Embedding.from_pretrained(torch.cat([known, new.to(known.device)]), freeze=False)

    @property
    def hidden_size(self) -> int:
        """D, the width of the text tower."""
        return self.vlm.words.embedding_dim

    @property
    def visual_size(self) -> int:
        """C, the width of the stems."""
        return self.vlm.visual_norm.normalized_shape[0]

    @property
    def word_embedding(self) -> nn.Module:
        """Token ids (B, L) -> (B, L, D)."""
        return self.vlm.words

    @property
    def text_tower(self) -> nn.Module:
        """The layers that let tokens look at each other and at the images."""
        return self.vlm.text_tower

    @property
    def vision_tower(self) -> nn.Module:
        """One stem per camera."""
        return self.vlm.stems

    def parts(self) -> dict[Part, list[nn.Parameter]]:
        """As of every backbone; the positions of text are part of its embedding."""
        parts = super().parts()
        positions = self.vlm.text_positions
        rest = [weight for weight in parts["resampler"] if weight is not positions]
        return parts | {"resampler": rest, "embeddings": [*parts["embeddings"], positions]}

    def encode_images(self, pixels_BV3SS: Tensor) -> Tensor:
        """Visual tokens of all cameras in a row, (B, N, C); each camera has its own stem."""
        tokens = [stem(pixels_BV3SS[:, camera]) for camera, stem in enumerate(self.vlm.stems)]
        return self.vlm.visual_norm(torch.cat(tokens, 1))

    def fuse(self, visual_BND: Tensor, text_BLD: Tensor, text_mask_BL: Tensor, queries_BQD: Tensor) -> Tensor:
        """Hidden states of the queries, (B, Q, D); the images are looked at, not part of the sequence."""
        text_BLD = text_BLD + self.vlm.text_positions[: text_BLD.shape[1]]
        tokens_BTD = torch.cat([text_BLD, queries_BQD], 1)
        mask_BT = torch.cat([text_mask_BL, text_mask_BL.new_ones(queries_BQD.shape[:2])], 1)
        return self.text_tower(tokens_BTD, mask_BT, visual_BND)[:, -queries_BQD.shape[1]:]


class TinyVlm(nn.Module):
    """All weights of the small vision-language model."""

    def __init__(self, options: TinyBackbone.Options, cameras: int, grid: int, vocabulary_size: int,
                 text_length: int) -> None:
        super().__init__()
        self.stems = nn.ModuleList(Stem(options.visual_width, grid) for _ in range(cameras))
        self.visual_norm = nn.LayerNorm(options.visual_width)
        self.words = nn.Embedding(vocabulary_size, options.width)
        self.text_positions = nn.Parameter(torch.randn(text_length, options.width) * 0.02)
        self.text_tower = TextTower(options)


class Stem(nn.Module):
    """(B, 3, S, S) -> (B, grid * grid, C): convolutions, then a learned reading of each cell's place."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        half = width // 2
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, half, 4, stride=4), nn.GroupNorm(NORM_GROUPS // 2, half), nn.GELU(),
            nn.Conv2d(half, width, 3, stride=2, padding=1), nn.GroupNorm(NORM_GROUPS, width), nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(NORM_GROUPS, width), nn.GELU(),
            nn.Conv2d(width, width, 1))
        self.register_buffer("places", sine_places(grid), persistent=False)
        self.place_embedding = nn.Linear(self.places.shape[-1], width)

    def forward(self, pixels_B3SS: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, N, C), the grid's cells row by row."""
        tokens_BNC = self.convolutions(pixels_B3SS).flatten(2).transpose(1, 2)
        return tokens_BNC + self.place_embedding(self.places)


def sine_places(grid: int) -> Tensor:
    """Where each cell of a grid is, row by row, (grid * grid, 14): x, y in -1..1, their sines and cosines."""
    line = (torch.arange(grid) + 0.5) / grid * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    features = [x, y]
    for octave in OCTAVES:
        for axis in (x, y):
            features += [torch.sin(math.pi * octave * axis), torch.cos(math.pi * octave * axis)]
    return torch.stack(features, -1).flatten(0, 1)


class TextTower(nn.Module):
    """Pre-normalised layers: tokens look at each other, then at the images, then feed forward."""

    def __init__(self, options: TinyBackbone.Options) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.width)

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor, visual_BNC: Tensor) -> Tensor:
        """mask_BT: True where a token is real. Returns (B, T, D)."""
        for layer in self.layers:
            tokens_BTD = layer(tokens_BTD, mask_BT, visual_BNC)
        return self.norm(tokens_BTD)


class Layer(nn.Module):
    """One layer of the text tower."""

    def __init__(self, options: TinyBackbone.Options) -> None:
        super().__init__()
        width = options.width
        self.self_norm, self.cross_norm, self.feed_norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, width, options.heads)
        self.cross_attention = Attention(width, options.visual_width, options.heads)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor, visual_BNC: Tensor) -> Tensor:
        """Tokens (B, T, D) in and out. mask_BT: True where a token is real. visual_BNC: what all of them look at."""
        normed = self.self_norm(tokens_BTD)
        tokens_BTD = tokens_BTD + self.self_attention(normed, normed, mask_BT[:, None, None, :])
        tokens_BTD = tokens_BTD + self.cross_attention(self.cross_norm(tokens_BTD), visual_BNC)
        return tokens_BTD + self.feed(self.feed_norm(tokens_BTD))


class Attention(nn.Module):
    """Multi-head attention of `width` wide queries to `source_width` wide sources."""

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, sources: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (B, T, D), sources (B, N, C); mask: True where a source counts, as (B, heads, T, N)."""
        key, value = self.key_value(sources).chunk(2, -1)
        query, key, value = (features.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                             for features in (self.query(tokens), key, value))
        # Written out: with so few queries torch's fused kernel costs a third more in a CPU's training step.
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return self.out((scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).flatten(2))

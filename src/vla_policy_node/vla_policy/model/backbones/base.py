"""Images and word embeddings in, one hidden state per query token out: the few faces every backbone shows.

A new backbone is a subclass of about 30 lines: `create` builds or loads the model, the properties say where
its parts are, and `encode_image` turns pixels into visual tokens. Where image tokens do not simply stand
before the text (cross-attention, encoder-decoder) it replaces `fuse`.

Shapes: B batch, V cameras, M images, S image side, N visual tokens of all cameras, L text tokens, Q queries,
D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_policy.model.config import ModelConfig
from vla_policy.strict import StrictModel


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """Scales pixels as the vision tower knows them: (value / 255 - mean) / std. `size`: image side [px]."""

    size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (..., S, S, 3), RGB -> float32 (..., 3, S, S).

        Raises: ValueError for another size or dtype.
        """
        if images.dtype != torch.uint8 or images.shape[-3:] != (self.size, self.size, 3):
            raise ValueError(f"images: got {images.dtype} {tuple(images.shape)}, expected torch.uint8 "
                             f"(..., {self.size}, {self.size}, 3); use "
                             "vla_policy.observation.resize.resize_image")
        mean, std = (255 * torch.tensor(value, device=images.device)[:, None, None]
                     for value in (self.mean, self.std))
        # Planes first: subtracting from whole planes is several times faster than from interleaved pixels.
        return images.movedim(-1, -3).contiguous().float().sub_(mean).div_(std)


class Backbone(nn.Module, ABC):
    """A vision-language model as the policy sees it. `vlm` is the wrapped model and holds all weights."""

    class Options(StrictModel):
        """Keys of `backbone_options`; a backbone without any inherits this."""

    def __init__(self, vlm: nn.Module, image_processor: ImageProcessor) -> None:
        super().__init__()
        self.vlm = vlm
        self.image_processor = image_processor

    @classmethod
    @abstractmethod
    def create(cls, config: ModelConfig, vocabulary_size: int) -> Backbone:
        """Build the backbone that `config` describes; `vocabulary_size` is that of the policy's tokenizer."""

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse what this backbone cannot do. Raises: ConfigError with the reason and what works."""

    @property
    def model(self) -> nn.Module:
        """The whole vision-language model."""
        return self.vlm

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """D, the width of the text tower."""

    @property
    @abstractmethod
    def word_embedding(self) -> nn.Module:
        """Token ids (B, L) -> (B, L, D)."""

    @property
    @abstractmethod
    def text_tower(self) -> nn.Module:
        """The transformer over embedded tokens."""

    @property
    @abstractmethod
    def vision_tower(self) -> nn.Module:
        """The image encoder."""

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Visual tokens of single images, (M, n, D)."""
        raise NotImplementedError(f"{type(self).__name__} needs encode_image, or its own encode_images")

    def encode_images(self, pixels_BV3SS: Tensor) -> Tensor:
        """Visual tokens of all cameras in a row, (B, N, D)."""
        tokens_MnD = self.encode_image(pixels_BV3SS.flatten(0, 1))
        return tokens_MnD.reshape(len(pixels_BV3SS), -1, tokens_MnD.shape[-1])

    def fuse(self, visual_BND: Tensor, text_BLD: Tensor, text_mask_BL: Tensor, queries_BQD: Tensor) -> Tensor:
        """Hidden states of the queries in the sequence [image | text | queries], (B, Q, D).

        Positions count real tokens only, so padding of the text changes nothing.
        """
        tokens = torch.cat([visual_BND, text_BLD, queries_BQD], 1)
        mask = torch.cat([text_mask_BL.new_ones(visual_BND.shape[:2]), text_mask_BL,
                          text_mask_BL.new_ones(queries_BQD.shape[:2])], 1).long()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        output = self.text_tower(inputs_embeds=tokens, attention_mask=mask, position_ids=positions,
                                 use_cache=False)
        return output.last_hidden_state[:, -queries_BQD.shape[1]:]

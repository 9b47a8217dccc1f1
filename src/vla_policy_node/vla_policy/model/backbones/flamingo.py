"""Flamingo: images in, text that looks at them out. The open reproduction, IDEFICS.

Source: https://arxiv.org/abs/2204.14198 and https://huggingface.co/HuggingFaceM4/idefics-9b. The weights of
OpenFlamingo do not map: its language models are MPT and GPT-NeoX, this one's is a Llama, and its cross-attention
has layer norms and plain perceptrons where this one has RMS norms and gated ones.

Shapes: B batch, M images, S image side, N visual tokens, C visual width, L text, Q queries, D width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import IdeficsConfig, IdeficsForVisionText2Text

from vla_policy.model.backbones.base import ImageProcessor
from vla_policy.model.backbones.pretrained import CLIP_MEAN, CLIP_STD, TWIN_TEXT, PretrainedBackbone


class Flamingo(PretrainedBackbone):
    """Images are looked at by gated cross-attention; they are no part of the token sequence."""

    hf_class = IdeficsForVisionText2Text
    weights = "HuggingFaceM4/idefics-9b"
    published = {
        "vision_config": {"embed_dim": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
                          "num_attention_heads": 16, "image_size": 224, "patch_size": 14},
        "perceiver_config": {"use_resampler": True, "resampler_n_latents": 64, "resampler_depth": 6,
                             "resampler_n_heads": 16, "resampler_head_dim": 96,
                             "qk_layer_norms_perceiver": True},
        "use_resampler": True, "cross_layer_interval": 4, "qk_layer_norms": True, "additional_vocab_size": 2}
    mean, std = CLIP_MEAN, CLIP_STD
    instruction_prompt = "<s>{instruction}"
    interleaves: ClassVar[bool] = False

    def __init__(self, vlm: nn.Module, image_processor: ImageProcessor) -> None:
        super().__init__(vlm, image_processor)
        vlm.requires_grad_(True)  # IDEFICS freezes most of itself; what trains is the trainer's choice

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> IdeficsConfig:
        """A twin of the same parts. Open gates, since closed ones hide the images until they are trained."""
        vision = {"embed_dim": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "image_size": image_size, "patch_size": 16}
        resampler = {"use_resampler": True, "resampler_n_latents": 4, "resampler_depth": 1,
                     "resampler_n_heads": 4, "resampler_head_dim": 8}
        text = {key: value for key, value in TWIN_TEXT.items() if key != "num_key_value_heads"}
        return IdeficsConfig(**text, vocab_size=vocabulary_size, vision_config=vision, use_resampler=True,
                             perceiver_config=resampler, cross_layer_interval=1, alpha_initializer="ones",
                             alpha_type="float")

    @property
    def text_tower(self) -> nn.Module:
        """The Llama with its gated cross-attention; vision tower and resampler are parts of the same module."""
        return self.vlm.model

    @property
    def vision_tower(self) -> nn.Module:
        """The vision transformer whose patch states the resampler reads."""
        return self.vlm.model.vision_model

    @property
    def connectors(self) -> tuple[nn.Module, ...]:
        """The resampler."""
        return (self.vlm.model.perceiver_resampler,)

    @property
    def text_layers(self) -> list[nn.Module]:
        """The Llama's layers, each behind the cross-attention that runs before it, where there is one."""
        gated, interval = self.text_tower.gated_cross_attn_layers, self.text_tower.cross_layer_interval
        pairs = ((gated[index // interval], layer) if index % interval == 0 else (layer,)
                 for index, layer in enumerate(self.text_tower.layers))
        return [layer for pair in pairs for layer in pair]

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """What the resampler makes of an image, (M, n, C)."""
        features = self.vision_tower(pixel_values=pixels_M3SS).last_hidden_state
        return self.vlm.model.perceiver_resampler(features)

    def fuse(self, visual_BND: Tensor, text_BLD: Tensor, text_mask_BL: Tensor, queries_BQD: Tensor) -> Tensor:
        """Hidden states of the queries in the sequence [text | queries]; every token sees all images."""
        tokens = torch.cat([text_BLD, queries_BQD], 1).to(self.vlm.dtype)
        self.check_length(tokens.shape[1])
        mask = torch.cat([text_mask_BL, text_mask_BL.new_ones(queries_BQD.shape[:2])], 1).long()
        output = self.text_tower(inputs_embeds=tokens, attention_mask=mask,
                                 perceiver_embeddings=visual_BND[:, None],
                                 image_attention_mask=mask.new_ones(*mask.shape, 1), use_cache=False)
        return output.last_hidden_state[:, -queries_BQD.shape[1]:].float()

    @property
    def visual_size(self) -> int:
        """C, the width of the vision tower: the resampler keeps it, cross-attention maps it to that of words."""
        return self.vlm.config.vision_config.embed_dim

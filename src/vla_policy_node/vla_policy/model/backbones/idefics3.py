"""Images and embedded tokens in, hidden states out: Idefics3 (https://arxiv.org/abs/2408.12637).

The native `get_image_features` drops images that are black all over; here the vision tower and the connector
are called, which keeps every image. The tower reads places as fractions of an image, so images smaller than
the published side work: fewer whole groups of patches, fewer tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration, PreTrainedConfig

from vla_policy.model.backbones.pretrained import SO400M, TWIN_TEXT, TWIN_VISION, PretrainedBackbone


class Idefics3(PretrainedBackbone):
    """SigLIP, pixel shuffle, a projection and a Llama over [turn of the user | image | text | queries]."""

    hf_class = Idefics3ForConditionalGeneration
    weights = "HuggingFaceM4/Idefics3-8B-Llama3"
    published = {
        "text_config": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
                        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                        "vocab_size": 128259, "pad_token_id": 128002},
        "vision_config": SO400M | {"image_size": 364}, "scale_factor": 2}
    image_size = 364
    instruction_prompt = "<|begin_of_text|>User:{instruction}<end_of_utterance>\nAssistant:"
    leading_tokens = 3

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> PreTrainedConfig:
        """The twin: a Llama and a vision transformer; every 16 x 16 px of an image become one token."""
        text = TWIN_TEXT | {"model_type": "llama", "vocab_size": vocabulary_size}
        vision = TWIN_VISION | {"image_size": image_size, "patch_size": 8}
        return cls.hf_class.config_class(text_config=text, vision_config=vision, scale_factor=2,
                                         image_token_id=vocabulary_size - 1)

    @classmethod
    def side_of_images(cls, hf_config: PreTrainedConfig, image_size: int) -> int:
        """The largest side [px] of whole groups of patches, up to `image_size` and to the published side."""
        vision = hf_config.vision_config
        group = vision.patch_size * getattr(hf_config, "scale_factor", 1)
        return min(max(image_size // group, 1) * group, vision.image_size)

    @property
    def text_tower(self) -> nn.Module:
        """The Llama, without its output layer."""
        return self.vlm.model.text_model

    @property
    def vision_tower(self) -> nn.Module:
        """The vision transformer; it takes a mask of patches beside the pixels."""
        return self.vlm.model.vision_model

    def patches(self, pixels_M3SS: Tensor) -> tuple[Tensor, Tensor]:
        """States of all patches (M, p, C), and the mask (M, p) that says that all are real."""
        grid = pixels_M3SS.shape[-1] // self.vlm.config.vision_config.patch_size
        whole = torch.ones(len(pixels_M3SS), grid, grid, dtype=torch.bool, device=pixels_M3SS.device)
        states = self.vision_tower(pixel_values=pixels_M3SS, patch_attention_mask=whole).last_hidden_state
        return states, whole.flatten(1)

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Images (M, 3, S, S) -> tokens (M, n, D); `scale_factor` squared patches become one token."""
        return self.vlm.model.connector(self.patches(pixels_M3SS)[0])

"""Images and embedded tokens in, hidden states out: LLaVA 1.5, LLaVA-NeXT and LLaVA-OneVision.

https://arxiv.org/abs/2310.03744 and https://arxiv.org/abs/2408.03326

The younger two cut a single image into tiles, but keep each of several images whole, as those of a policy's
cameras are, and end it with a learned token.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)

from vla_policy.model.backbones.pretrained import (
    CLIP_MEAN,
    CLIP_STD,
    SO400M,
    TWIN_TEXT,
    TWIN_VISION,
    PretrainedBackbone,
)


class Llava(PretrainedBackbone):
    """CLIP, a perceptron and a Llama over [<s> | image | text | queries]."""

    hf_class = LlavaForConditionalGeneration
    weights = "llava-hf/llava-1.5-7b-hf"
    published = {"text_config": {"model_type": "llama", "vocab_size": 32064}}
    image_size = 336
    mean, std = CLIP_MEAN, CLIP_STD
    instruction_prompt = "<s>USER: {instruction} ASSISTANT:"
    leading_tokens = 1

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> LlavaConfig:
        """The twin: a Llama and a CLIP, one token per patch of 16 x 16 px."""
        text = TWIN_TEXT | {"model_type": "llama", "vocab_size": vocabulary_size}
        vision = TWIN_VISION | {"model_type": "clip_vision_model", "image_size": image_size,
                                "projection_dim": 64}
        return LlavaConfig(text_config=text, vision_config=vision, image_token_id=vocabulary_size - 1)

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Images (M, 3, S, S) -> (M, patches, D), from the layer of CLIP that the configuration names."""
        config = self.vlm.config
        states = self.vision_tower(pixels_M3SS, output_hidden_states=True).hidden_states
        tokens = states[config.vision_feature_layer]
        if config.vision_feature_select_strategy == "default":  # without the class token
            tokens = tokens[:, 1:]
        return self.vlm.model.multi_modal_projector(tokens)


class LlavaNext(Llava):
    """LLaVA 1.6."""

    hf_class = LlavaNextForConditionalGeneration
    weights = "llava-hf/llava-v1.6-vicuna-7b-hf"

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> LlavaNextConfig:
        """Llava's twin under LLaVA 1.6's class, with one grid: the image as a whole."""
        alike = super().tiny_config(vocabulary_size, image_size)
        return LlavaNextConfig(text_config=alike.text_config, vision_config=alike.vision_config,
                               image_token_id=alike.image_token_id, image_grid_pinpoints=[[image_size] * 2])

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Images (M, 3, S, S) -> (M, patches + 1, D): Llava's tokens, then the one that ends an image."""
        end_1D = self.vlm.model.image_newline[None]
        return torch.cat([super().encode_image(pixels_M3SS), end_1D.expand(len(pixels_M3SS), 1, -1)], 1)


class LlavaOneVision(LlavaNext):
    """SigLIP and Qwen2."""

    hf_class = LlavaOnevisionForConditionalGeneration
    weights = "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
    published = {
        "text_config": {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
                        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
                        "vocab_size": 152000, "tie_word_embeddings": True},
        "vision_config": SO400M | {"model_type": "siglip_vision_model", "image_size": 384,
                                   "num_hidden_layers": 26, "vision_use_head": False},
        "tie_word_embeddings": True}
    image_size = 384
    mean = std = (0.5, 0.5, 0.5)
    instruction_prompt = "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
    leading_tokens = 3

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> LlavaOnevisionConfig:
        """The twin: a Qwen2 and a SigLIP, read at its last layer."""
        text = TWIN_TEXT | {"model_type": "qwen2", "vocab_size": vocabulary_size}
        vision = TWIN_VISION | {"model_type": "siglip_vision_model", "image_size": image_size,
                                "vision_use_head": False}
        return LlavaOnevisionConfig(text_config=text, vision_config=vision,
                                    image_token_id=vocabulary_size - 1, video_token_id=vocabulary_size - 2,
                                    image_grid_pinpoints=[[image_size] * 2],
                                    vision_feature_layer=-1, vision_feature_select_strategy="full")

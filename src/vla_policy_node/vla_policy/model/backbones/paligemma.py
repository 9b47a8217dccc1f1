"""Images and embedded tokens in, hidden states out: PaliGemma (https://arxiv.org/abs/2407.07726).

Every token sees every other: images and text are its prefix, and the queries count to it. Words are scaled by
the root of the width when embedded; image tokens are not divided by it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from vla_policy.model.backbones.pretrained import SO400M, TWIN_TEXT, TWIN_VISION, PretrainedBackbone


class PaliGemma(PretrainedBackbone):
    """SigLIP, a linear projection and Gemma over [image | <bos> text | queries]."""

    hf_class = PaliGemmaForConditionalGeneration
    weights = "google/paligemma-3b-pt-224"
    published = {
        "text_config": {"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384,
                        "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1,
                        "head_dim": 256, "vocab_size": 257216},
        "vision_config": SO400M | {"model_type": "siglip_vision_model", "image_size": 224,
                                   "vision_use_head": False},
        "projection_dim": 2048}
    instruction_prompt = "<bos>{instruction}\n"
    causal = False
    first_position = 1
    token_type: ClassVar[int] = 0  # a token of type 0 looks both ways, of type 1 back only

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> PaliGemmaConfig:
        """The twin: a Gemma and a SigLIP, one token per patch of 16 x 16 px."""
        text = TWIN_TEXT | {"model_type": "gemma", "head_dim": 16, "vocab_size": vocabulary_size}
        vision = TWIN_VISION | {"model_type": "siglip_vision_model", "image_size": image_size,
                                "vision_use_head": False, "projection_dim": 64}
        return PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=64,
                               image_token_id=vocabulary_size - 1)

    def hidden_states(self, visual_BT: Tensor, **inputs: Tensor) -> Tensor:
        """(B, T, D); every token, an image's or not, gets the type `token_type`."""
        types_BT = torch.full_like(inputs["attention_mask"], self.token_type)
        return self.vlm.model(token_type_ids=types_BT, use_cache=False, **inputs).last_hidden_state


class CausalPaliGemma(PaliGemma):
    """As RoboVLMs trains it: a token sees earlier ones only, and the first one stands before the images."""

    instruction_prompt = "<eos>{instruction}"
    causal = True
    leading_tokens = 1
    token_type = 1

"""Images and embedded tokens in, hidden states out: Kosmos-2 (https://arxiv.org/abs/2306.14824).

RoboVLMs' best model stands on it, with the same order of tokens and the same prompt. A resampler turns each
image into a fixed number of tokens. The text tower scales what it gets and adds its sinusoidal positions by
itself; they start after that of padding.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from vla_policy.model.backbones.pretrained import CLIP_MEAN, CLIP_STD, TWIN_VISION, PretrainedBackbone


class Kosmos(PretrainedBackbone):
    """Kosmos-2: a causal text tower over [<s> | image | text | queries]."""

    hf_class = Kosmos2ForConditionalGeneration
    weights = "microsoft/kosmos-2-patch14-224"
    published = {}  # all defaults of its class
    mean, std = CLIP_MEAN, CLIP_STD
    instruction_prompt = "<s><grounding>An image of a robot {instruction}"
    leading_tokens = 1
    first_position = 2

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> Kosmos2Config:
        """The twin: Kosmos-2's text and vision transformers, eight tokens an image."""
        text = {"vocab_size": vocabulary_size, "embed_dim": 64, "layers": 2, "ffn_dim": 128,
                "attention_heads": 4, "dropout": 0.0, "attention_dropout": 0.0}
        return Kosmos2Config(text_config=text, vision_config=TWIN_VISION | {"image_size": image_size},
                             latent_query_num=8)

    @property
    def text_tower(self) -> nn.Module:
        """The text transformer, without its output layer."""
        return self.vlm.text_model.model

    @property
    def vision_tower(self) -> nn.Module:
        """The CLIP vision model, with the layer norm behind it."""
        return self.vlm.vision_model

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Images (M, 3, S, S) -> (M, latents, D): normalised patch states, read by the resampler."""
        states = self.vision_tower(pixel_values=pixels_M3SS).last_hidden_state
        states = nn.functional.normalize(self.vision_tower.model.post_layernorm(states), dim=-1)
        return self.vlm.image_to_text_projection(states)[0]

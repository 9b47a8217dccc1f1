"""Images and embedded tokens in, hidden states out: Idefics2 (https://arxiv.org/abs/2405.02246)."""

from __future__ import annotations

from torch import Tensor
from transformers import Idefics2Config, Idefics2ForConditionalGeneration

from vla_policy.model.backbones.idefics3 import Idefics3
from vla_policy.model.backbones.pretrained import SO400M, TWIN_TEXT, TWIN_VISION


class Idefics2(Idefics3):
    """SigLIP, a perceiver that gives a fixed number of tokens, and Mistral."""

    hf_class = Idefics2ForConditionalGeneration
    weights = "HuggingFaceM4/idefics2-8b"
    published = {
        "text_config": {"model_type": "mistral", "vocab_size": 32003, "pad_token_id": 0},
        "vision_config": SO400M | {"image_size": 980},
        "perceiver_config": {"hidden_size": 4096, "resampler_n_latents": 64, "resampler_depth": 3,
                             "resampler_n_heads": 16, "resampler_head_dim": 96, "num_key_value_heads": 4}}
    image_size = 378  # of up to 980; places are fractions of an image
    instruction_prompt = "<s>User:{instruction}<end_of_utterance>\nAssistant:"

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> Idefics2Config:
        """The twin: a Mistral, a vision transformer and a perceiver that gives eight tokens an image."""
        text = TWIN_TEXT | {"model_type": "mistral", "vocab_size": vocabulary_size}
        perceiver = {"hidden_size": 64, "resampler_n_latents": 8, "resampler_depth": 1,
                     "resampler_n_heads": 4, "resampler_head_dim": 16, "num_key_value_heads": 2}
        return Idefics2Config(text_config=text, vision_config=TWIN_VISION | {"image_size": image_size},
                              perceiver_config=perceiver, image_token_id=vocabulary_size - 1)

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """What the perceiver makes of the patches of images (M, 3, S, S): (M, latents, D)."""
        states, whole = self.patches(pixels_M3SS)
        return self.vlm.model.connector(states, attention_mask=whole)

"""Images and embedded tokens in, hidden states out: Gemma 3 (https://arxiv.org/abs/2503.19786).

Text looks back only; the tokens of an image also look at each other.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from vla_policy.model.backbones.pretrained import SO400M, TWIN_TEXT, TWIN_VISION, PretrainedBackbone


class Gemma3(PretrainedBackbone):
    """SigLIP, pooling, a projection and Gemma 3 over [<bos> turn of the user | image | text | queries]."""

    hf_class = Gemma3ForConditionalGeneration
    weights = "google/gemma-3-4b-it"
    published = {
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
                        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                        "vocab_size": 262208, "sliding_window": 1024},
        "vision_config": SO400M | {"model_type": "siglip_vision_model", "image_size": 896,
                                   "vision_use_head": False}}
    image_size = 896
    instruction_prompt = "<bos><start_of_turn>user\n{instruction}<end_of_turn>\n<start_of_turn>model\n"
    leading_tokens = 4

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> Gemma3Config:
        """The twin: a Gemma 3 with a sliding window of 64 tokens and a SigLIP, four tokens an image."""
        text = TWIN_TEXT | {"head_dim": 16, "sliding_window": 64, "vocab_size": vocabulary_size}
        vision = TWIN_VISION | {"model_type": "siglip_vision_model", "image_size": image_size,
                                "vision_use_head": False}
        return Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4,
                            image_token_id=vocabulary_size - 1)

    @classmethod
    def build(cls, hf_config: Gemma3Config, options: object) -> nn.Module:
        """A model with fresh weights, its image projection drawn at random too."""
        vlm = super().build(hf_config, options)
        projection = vlm.model.multi_modal_projector.mm_input_projection_weight
        nn.init.normal_(projection, std=projection.shape[0] ** -0.5)  # zero by default: a model without sight
        return vlm

    def hidden_states(self, visual_BT: Tensor, **inputs: Tensor) -> Tensor:
        """(B, T, D): neighbours marked in `visual_BT` see each other both ways, all other tokens look back only."""
        return self.vlm.model(token_type_ids=visual_BT.long(), use_cache=False, **inputs).last_hidden_state

"""Images and embedded tokens in, hidden states out: SmolVLM (https://arxiv.org/abs/2504.05299)."""

from __future__ import annotations

from transformers import SmolVLMForConditionalGeneration

from vla_policy.model.backbones.idefics3 import Idefics3


class SmolVLM(Idefics3):
    """The small one: Idefics3's layout over SmolLM2."""

    hf_class = SmolVLMForConditionalGeneration
    weights = "HuggingFaceTB/SmolVLM-256M-Instruct"
    published = {
        "text_config": {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "head_dim": 64,
                        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
                        "vocab_size": 49280, "pad_token_id": 2},
        "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                          "num_attention_heads": 12, "patch_size": 16, "image_size": 512},
        "scale_factor": 4}
    other_sizes = {"500m": published | {
        "text_config": published["text_config"] | {"hidden_size": 960, "intermediate_size": 2560, "head_dim": 64,
                                                   "num_hidden_layers": 32, "num_attention_heads": 15,
                                                   "num_key_value_heads": 5}}}
    image_size = 512
    instruction_prompt = "<|im_start|>User:{instruction}<end_of_utterance>\nAssistant:"

"""Images and embedded tokens in, hidden states out: SmolVLM (https://arxiv.org/abs/2504.05299)."""

from __future__ import annotations

from transformers import SmolVLMForConditionalGeneration

from vla_policy.model.backbones.idefics3 import Idefics3


class SmolVLM(Idefics3):
    """The small one: Idefics3's layout over SmolLM2."""

    hf_class = SmolVLMForConditionalGeneration
    weights = "HuggingFaceTB/SmolVLM-256M-Instruct"
    image_size = 512
    instruction_prompt = "<|im_start|>User:{instruction}<end_of_utterance>\nAssistant:"

"""Images and embedded tokens in, hidden states out: InternVL 3 (https://arxiv.org/abs/2504.10479)."""

from __future__ import annotations

from transformers import InternVLConfig, InternVLForConditionalGeneration, PreTrainedConfig

from vla_policy.model.backbones.pretrained import TWIN_TEXT, TWIN_VISION, PretrainedBackbone


class InternVL(PretrainedBackbone):
    """InternViT, pixel shuffle, a perceptron and Qwen2 over [turn of the user | image | text | queries]."""

    hf_class = InternVLForConditionalGeneration
    weights = "OpenGVLab/InternVL3-1B-hf"
    published = {
        "text_config": {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
                        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
                        "vocab_size": 151674, "tie_word_embeddings": False},
        "tie_word_embeddings": False}
    image_size = 448
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    instruction_prompt = "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
    leading_tokens = 3

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> InternVLConfig:
        """The twin: a Qwen2 and a vision transformer; every 16 x 16 px of an image become one token."""
        text = TWIN_TEXT | {"model_type": "qwen2", "vocab_size": vocabulary_size}
        vision = TWIN_VISION | {"image_size": [image_size] * 2, "patch_size": [8, 8]}
        return InternVLConfig(text_config=text, vision_config=vision, downsample_ratio=0.5,
                              image_token_id=vocabulary_size - 1, image_seq_length=(image_size // 16) ** 2)

    @classmethod
    def side_of_images(cls, hf_config: PreTrainedConfig, image_size: int) -> int:
        """The vision tower's own side [px]; its configuration gives height and width, which are the same."""
        return hf_config.vision_config.image_size[0]

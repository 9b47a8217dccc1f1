"""Florence-2: images and text into an encoder, the queries into its decoder.

Source: https://arxiv.org/abs/2311.06242. Shapes: B batch, M images, S image side, n visual tokens, D width.
"""

from __future__ import annotations

from transformers import Florence2Config, Florence2ForConditionalGeneration, PreTrainedConfig

from vla_policy.model.backbones.encoder_decoder import EncoderDecoder, twin_bart


class Florence2(EncoderDecoder):
    """DaViT and BART."""

    hf_class = Florence2ForConditionalGeneration
    weights = "florence-community/Florence-2-base"
    published = {"text_config": {
        "model_type": "bart", "d_model": 768, "encoder_layers": 6, "decoder_layers": 6,
        "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "vocab_size": 51289}}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    instruction_prompt = "<s>{instruction}</s>"

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> Florence2Config:
        """A twin of the same parts."""
        vision = {"depths": [1, 1, 1, 1], "embed_dim": [16, 16, 32, 32], "num_heads": [2, 2, 4, 4],
                  "num_groups": [2, 2, 4, 4], "window_size": 4, "projection_dim": 64}
        return Florence2Config(text_config=twin_bart(vocabulary_size), vision_config=vision,
                               image_token_id=vocabulary_size - 1)

    @classmethod
    def side_of_images(cls, hf_config: PreTrainedConfig, image_size: int) -> int:
        """`image_size` itself [px]: any will do."""
        return image_size  # convolutions take any

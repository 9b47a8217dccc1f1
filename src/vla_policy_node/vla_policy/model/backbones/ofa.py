"""OFA: images and text into an encoder, the queries into its decoder; composed of native ResNet and BART.

Source: https://arxiv.org/abs/2202.03052. `transformers` has no class for it, and its published weights need a
fork of 2022: it starts from chance here. The pretrained encoder-decoder of this family is `florence2`.

Shapes: M images, S image side, n visual tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import BartConfig, BartModel, PreTrainedConfig, PreTrainedModel, ResNetConfig, ResNetModel

from vla_policy.errors import ConfigError
from vla_policy.model.backbones.base import Backbone
from vla_policy.model.backbones.encoder_decoder import EncoderDecoder, twin_bart
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer

# The sizes of OFA-base: a ResNet-101 without its last stage, six layers each of encoder and decoder.
VISION = {"hidden_sizes": [256, 512, 1024], "depths": [3, 4, 23]}
TEXT = {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072, "encoder_attention_heads": 12, "decoder_attention_heads": 12,
        "vocab_size": 59457}


class OfaConfig(PreTrainedConfig):
    """The sizes of the two parts."""

    model_type = "ofa"
    sub_configs_defaults: ClassVar = {"vision_config": ResNetConfig, "text_config": BartConfig}
    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    tie_word_embeddings: bool = True


class OfaVlm(PreTrainedModel):
    """The parts side by side."""

    config_class = OfaConfig
    _supports_sdpa = True

    def __init__(self, config: OfaConfig) -> None:
        super().__init__(config)
        config.vision_config._attn_implementation = "eager"  # convolutions have no attention to choose
        self.vision_tower = ResNetModel(config.vision_config)
        self.projector = nn.Linear(config.vision_config.hidden_sizes[-1], config.text_config.d_model)
        self.language_model = BartModel(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """BART's word embedding, where `transformers` looks for it."""
        return self.language_model.get_input_embeddings()


class Ofa(EncoderDecoder):
    """ResNet and BART."""

    hf_class = OfaVlm
    weights = "random-base"
    published = {"vision_config": VISION, "text_config": TEXT}

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> OfaConfig:
        """A twin of the same parts."""
        vision = {"embedding_size": 16, "hidden_sizes": [16, 32, 32], "depths": [1, 1, 1],
                  "layer_type": "basic"}
        return OfaConfig(vision_config=vision, text_config=twin_bart(vocabulary_size))

    @classmethod
    def load(cls, weights: str, options: Any) -> nn.Module:
        """A model of OFA-base's size, from chance."""
        if weights != cls.weights:
            raise ConfigError(f"weights: got '{weights}', expected '{cls.weights}' or random-tiny: OFA's "
                              "published weights need a fork of transformers from 2022; for a pretrained "
                              "encoder-decoder take backbone florence2")
        return cls.build(OfaConfig(**cls.published), options)

    @classmethod
    def side_of_images(cls, hf_config: PreTrainedConfig, image_size: int) -> int:
        """`image_size` itself [px]: convolutions take any."""
        return image_size

    @classmethod
    def tokenizer(cls, config: ModelConfig, sentences: Iterable[str]) -> Tokenizer:
        """One that knows the words of `sentences`: nothing is pretrained."""
        return Backbone.tokenizer.__func__(cls, config, sentences)

    @property
    def text_tower(self) -> nn.Module:
        """BART, encoder and decoder."""
        return self.vlm.language_model

    @property
    def vision_tower(self) -> nn.Module:
        """The ResNet; its last feature map is read, not what it pools from that."""
        return self.vlm.vision_tower

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Images (M, 3, S, S) -> (M, n, D), one token per cell of the ResNet's last feature map, row by row."""
        features = self.vision_tower(pixels_M3SS).last_hidden_state
        return self.vlm.projector(features.flatten(2).transpose(1, 2))

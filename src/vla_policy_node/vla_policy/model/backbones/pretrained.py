"""A checkpoint's name or folder in, a ready backbone out: what all models of Hugging Face share.

The native classes of `transformers` are used as they are. An adapter names its class and its checkpoint, and
says where it differs. Weights come from one of three places: a checkpoint (`weights`), a bundle (it stores
the model's `architecture`, so nothing else is needed), or chance (`weights: random-tiny`, a twin of < 1 M
parameters for tests).

Images reach a model stretched to a square by `vla_policy.observation.resize`, in training as in serving.

Shapes: B batch, V cameras, M images, S image side, N visual tokens, n of one image, C their width, L text,
T tokens, D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from vla_policy.errors import BundleError, ConfigError
from vla_policy.model.backbones.base import Backbone, ImageProcessor
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import INSTRUCTION, Tokenizer
from vla_policy.strict import StrictModel

TWIN = "random-tiny"
SPARE_IDS = 8  # special ids of a twin, after the words of the policy's tokenizer
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Text and vision parts of a twin, in the words that most configurations share.
TWIN_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 2048,
             "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TWIN_VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
               "patch_size": 16}
# SigLIP So400m/14, the vision tower of many.
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
          "patch_size": 14}


class PretrainedBackbone(Backbone):
    """A native vision-language model behind the faces of every backbone.

    hf_class: the class in `transformers`. weights: its published checkpoint. published: the configuration of
    that, to count parameters without a network; None where it is not known. other_sizes: configurations of its other
    checkpoints, to measure models of their size. mean, std: how its vision tower
    wants pixels scaled. instruction_prompt: its prompt, special tokens included.
    """

    hf_class: ClassVar[type[PreTrainedModel]]
    weights: ClassVar[str]
    published: ClassVar[dict[str, Any] | None] = None
    other_sizes: ClassVar[dict[str, dict[str, Any]]] = {}
    mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    std: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    instruction_prompt: ClassVar[str] = INSTRUCTION
    image_size: ClassVar[int] = 224
    text_length: ClassVar[int] = 48
    casts_inputs: ClassVar[bool] = True

    class Options(StrictModel):
        """weights: a name on the Hugging Face hub, a local folder, or random-tiny; by default the published
        checkpoint. dtype: number type of the weights. device_map: as `from_pretrained` takes it.
        attention_implementation: how attention is computed. prompt: replaces the backbone's own; as many of its
        tokens as there are `leading_tokens` come before the images.
        architecture: the model's configuration, which a bundle stores; then no weights are looked for.
        """

        weights: str | None = None
        dtype: Literal["float32", "bfloat16"] = "float32"
        device_map: str | None = None
        attention_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
        prompt: str | None = None
        architecture: dict[str, Any] = {}

    @classmethod
    def options(cls, config: ModelConfig) -> Any:
        """The `backbone_options` of a model file, checked."""
        return cls.Options(**config.backbone_options)

    @classmethod
    def checkpoint(cls, config: ModelConfig) -> str:
        """The name or folder that weights come from."""
        weights = cls.options(config).weights or cls.weights
        return str(Path(weights).expanduser()) if weights.startswith("~") else weights

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> PreTrainedConfig:
        """The configuration of the twin: `vocabulary_size` ids, images of `image_size` px."""
        raise NotImplementedError(f"{cls.__name__} needs tiny_config")

    @classmethod
    def create(cls, config: ModelConfig, vocabulary_size: int) -> Self:
        """Load or build the model. Raises: ConfigError for weights that are missing or another model's, and
        for an image size that is not the vision tower's.
        """
        options = cls.options(config)
        if options.architecture:
            vlm = cls.build(cls.hf_class.config_class.from_dict(options.architecture), options)
        elif options.weights == TWIN:
            vlm = cls.build(cls.tiny_config(vocabulary_size + SPARE_IDS, config.image_size), options)
        else:
            vlm = cls.load(cls.checkpoint(config), options)
        expected = cls.side_of_images(vlm.config, config.image_size)
        if config.image_size != expected:
            raise ConfigError(f"image_size: got {config.image_size}, expected {expected}, the side of images "
                              f"for {cls.checkpoint(config)}; set model.image_size: {expected}")
        return cls(vlm, ImageProcessor(config.image_size, cls.mean, cls.std))

    @classmethod
    def build(cls, hf_config: PreTrainedConfig, options: Any) -> nn.Module:
        """A model with fresh weights."""
        try:
            return cls.hf_class._from_config(hf_config, dtype=getattr(torch, options.dtype),
                                             attn_implementation=options.attention_implementation)
        except (ImportError, ValueError) as problem:
            raise ConfigError(f"backbone_options: {cls.hf_class.__name__} cannot be built so: "
                              f"{_line(problem)}; try attention_implementation: sdpa or eager") from None

    @classmethod
    def load(cls, weights: str, options: Any) -> nn.Module:
        """The model with the weights of a checkpoint, every one of them."""
        _check_model_type(weights, cls.hf_class.config_class.model_type)
        try:
            vlm, report = cls.hf_class.from_pretrained(
                weights, dtype=getattr(torch, options.dtype), device_map=options.device_map,
                attn_implementation=options.attention_implementation, use_safetensors=True,
                output_loading_info=True)
        except OSError as problem:
            raise not_found(weights, cls.hf_class.config_class.model_type, problem) from None
        except (ImportError, ValueError, RuntimeError, SafetensorError) as problem:
            raise ConfigError(f"weights: {weights} cannot be loaded as {cls.hf_class.__name__}: "
                              f"{_line(problem)}; correct backbone_options, or fetch the files "
                              "again") from None
        if report["missing_keys"]:
            raise ConfigError(f"weights: {weights} lacks {sorted(report['missing_keys'])[:8]}, which "
                              f"{cls.hf_class.__name__} needs; take a complete checkpoint")
        return vlm

    @classmethod
    def side_of_images(cls, hf_config: PreTrainedConfig, image_size: int) -> int:
        """The image side [px] to use in place of `image_size`: the one that the vision tower knows."""
        return hf_config.vision_config.image_size

    @classmethod
    def tokenizer(cls, config: ModelConfig, sentences: Iterable[str]) -> Tokenizer:
        """The model's own tokenizer; a twin gets one that knows the words of `sentences`.

        Raises: ConfigError where the checkpoint has none.
        """
        weights = cls.checkpoint(config)
        if weights == TWIN:
            return super().tokenizer(config, sentences)
        try:
            return Tokenizer.load(cached_file(weights, "tokenizer.json"), cls.prompt(config))
        except BundleError as problem:
            raise ConfigError(f"weights: {problem}") from None
        except OSError as problem:
            raise not_found(weights, cls.hf_class.config_class.model_type, problem) from None

    @classmethod
    def prompt(cls, config: ModelConfig) -> str:
        """The prompt of the options, or the model's own; the twin's few words are not those of a prompt."""
        options = cls.options(config)
        return options.prompt or (INSTRUCTION if options.weights == TWIN else cls.instruction_prompt)

    @classmethod
    def architecture(cls, weights: str) -> dict[str, Any]:
        """The configuration of a checkpoint, as `create` takes it. Raises: ConfigError."""
        hf_config = cls.hf_class.config_class
        _check_model_type(weights, hf_config.model_type)
        return json.loads(hf_config.from_pretrained(weights).to_json_string())

    def stored_options(self) -> dict[str, Any]:
        """The architecture, as `create` takes it."""
        return {"architecture": json.loads(self.vlm.config.to_json_string())}

    @property
    def hidden_size(self) -> int:
        """D, read from the text part of the model's configuration."""
        return self.vlm.config.get_text_config().hidden_size

    @property
    def word_embedding(self) -> nn.Module:
        """Token ids (B, L) -> (B, L, D), by the model's own input embedding."""
        return self.vlm.get_input_embeddings()

    @property
    def output_embedding(self) -> nn.Module | None:
        """Hidden states (..., D) -> logits over the model's vocabulary; None where it has no such layer."""
        return self.vlm.get_output_embeddings()

    @property
    def text_tower(self) -> nn.Module:
        """The language model without its output layer, in the place that most native classes keep it."""
        return self.vlm.model.language_model

    @property
    def vision_tower(self) -> nn.Module:
        """The image encoder without projection, in the place that most native classes keep it."""
        return self.vlm.model.vision_tower

    @property
    def query_scale(self) -> float:
        """As large as words are once embedded: some models multiply them by the root of their width."""
        words = self.word_embedding.weight
        if words.is_meta:
            return super().query_scale
        some = torch.linspace(0, len(words) - 1, min(len(words), 1024), device=words.device).long()
        with torch.no_grad():
            return float(self.word_embedding(some).float().std())

    @property
    def max_positions(self) -> int | None:
        """`max_position_embeddings` of the text configuration; None where it names no such limit."""
        return getattr(self.vlm.config.get_text_config(), "max_position_embeddings", None)

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Images (M, 3, S, S) -> (M, n, D), projected to the width of words by the native class."""
        return self.vlm.model.get_image_features(pixels_M3SS).pooler_output

    def encode_images(self, pixels_BV3SS: Tensor) -> Tensor:
        """Visual tokens (B, N, C) of all cameras, from pixels cast to the number type of the weights."""
        return super().encode_images(pixels_BV3SS.to(self.vlm.dtype))

    def run(self, tokens_BTD: Tensor, mask_BT: Tensor, visual_BT: Tensor) -> Tensor:
        """Hidden states (B, T, D) in float32, computed in the number type of the weights."""
        return super().run(tokens_BTD.to(self.vlm.dtype), mask_BT, visual_BT).float()


def _check_model_type(weights: str, expected: str) -> None:
    """Refuse another model's checkpoint before its weights are read."""
    if not weights.strip():
        raise ConfigError("weights: got an empty name, expected a name on the hub or a folder")
    try:
        got = PreTrainedConfig.get_config_dict(weights)[0].get("model_type")
    except (OSError, ValueError) as problem:
        raise not_found(weights, expected, problem) from None
    if got is None:
        raise not_found(weights, expected, ValueError("it has no config.json with a model_type"))
    if got != expected:
        raise ConfigError(f"weights: {weights} holds a model of model_type '{got}', expected '{expected}'; "
                          "choose the backbone that it belongs to, or another checkpoint")


def not_found(weights: str, model_type: str, problem: Exception) -> ConfigError:
    """Where the weights were looked for, and how to get them."""
    if Path(weights).is_dir():
        files = sorted(file.name for file in Path(weights).iterdir())[:8]
        return ConfigError(f"weights: folder {weights} holds {files or 'nothing'}, expected a checkpoint of "
                           f"model_type '{model_type}' with config.json, model.safetensors and "
                           f"tokenizer.json; fetch it whole ({_line(problem)})")
    if weights.startswith((".", "~", "/")) or weights.count("/") != 1:
        return ConfigError(f"weights: no folder {weights}, expected a checkpoint of model_type "
                           f"'{model_type}'; give an existing folder, or a name on the hub such as "
                           "organisation/model")
    cache = Path(HF_HUB_CACHE) / f"models--{weights.replace('/', '--')}"
    return ConfigError(f"weights: {weights} is not in {cache} and could not be fetched; where there is a "
                       f"network run `hf download {weights}`, or give model.backbone_options.weights "
                       f"a folder that holds it ({_line(problem)})")


def _line(problem: Exception) -> str:
    """The first sentence of a library's message."""
    return " ".join(str(problem).split()).split(". ")[0][:300]

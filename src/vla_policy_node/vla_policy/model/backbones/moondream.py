"""moondream2: images and text in, hidden states out, composed of native SigLIP, a perceptron and Phi.

There is no native class for it. Its published weights map one to one by `KEYS`. Source:
https://github.com/vikhyat/moondream (the code of June 2025).

Shapes: B batch, M images, S image side, n visual tokens, T tokens, D width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    PhiConfig,
    PhiForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.utils import cached_file

from vla_policy.errors import ConfigError
from vla_policy.model.backbones.pretrained import TWIN_TEXT, TWIN_VISION, PretrainedBackbone, not_found
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer

TOKENIZER = "moondream/starmie-v1"  # where the hub keeps it, apart from the weights
VISION = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
          "image_size": 378, "patch_size": 14, "vision_use_head": False}

# Module or tensor of moondream2 -> ours. '#' is a layer's number; '*' stands for q, k and v, stacked there.
KEYS = {
    "vision.patch_emb": "vision_tower.embeddings.patch_embedding",
    "vision.pos_emb": "vision_tower.embeddings.position_embedding.weight",
    "vision.blocks.#.ln1": "vision_tower.encoder.layers.#.layer_norm1",
    "vision.blocks.#.attn.qkv": "vision_tower.encoder.layers.#.self_attn.*_proj",
    "vision.blocks.#.attn.proj": "vision_tower.encoder.layers.#.self_attn.out_proj",
    "vision.blocks.#.ln2": "vision_tower.encoder.layers.#.layer_norm2",
    "vision.blocks.#.mlp.fc1": "vision_tower.encoder.layers.#.mlp.fc1",
    "vision.blocks.#.mlp.fc2": "vision_tower.encoder.layers.#.mlp.fc2",
    "vision.post_ln": "vision_tower.post_layernorm",
    "vision.proj_mlp.fc1": "projector.0",
    "vision.proj_mlp.fc2": "projector.2",
    "text.wte": "language_model.model.embed_tokens.weight",
    "text.blocks.#.ln": "language_model.model.layers.#.input_layernorm",
    "text.blocks.#.attn.qkv": "language_model.model.layers.#.self_attn.*_proj",
    "text.blocks.#.attn.proj": "language_model.model.layers.#.self_attn.dense",
    "text.blocks.#.mlp.fc1": "language_model.model.layers.#.mlp.fc1",
    "text.blocks.#.mlp.fc2": "language_model.model.layers.#.mlp.fc2",
    "text.post_ln": "language_model.model.final_layernorm",
    "text.lm_head": "language_model.lm_head",
}
UNUSED = "region."  # its heads that point at things


class MoondreamConfig(PreTrainedConfig):
    """The sizes of the three parts; those of moondream2 unless given."""

    model_type = "moondream"
    sub_configs_defaults: ClassVar = {"vision_config": SiglipVisionConfig, "text_config": PhiConfig}
    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    projector_size: int = 8192
    tie_word_embeddings: bool = False


class MoondreamVlm(PreTrainedModel):
    """The three parts side by side."""

    config_class = MoondreamConfig
    _supports_sdpa = True

    def __init__(self, config: MoondreamConfig) -> None:
        super().__init__(config)
        vision, text = config.vision_config.hidden_size, config.text_config.hidden_size
        self.vision_tower = SiglipVisionModel(config.vision_config)
        self.projector = nn.Sequential(nn.Linear(2 * vision, config.projector_size), nn.GELU("tanh"),
                                       nn.Linear(config.projector_size, text))
        self.language_model = PhiForCausalLM(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Phi's word embedding, where `transformers` looks for it."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Phi's output layer over the vocabulary, where `transformers` looks for it."""
        return self.language_model.get_output_embeddings()


class Moondream(PretrainedBackbone):
    """The sentence's beginning and the images see each other; after them every token sees earlier ones."""

    hf_class = MoondreamVlm
    weights = "vikhyatk/moondream2"
    published = {"vision_config": VISION}
    instruction_prompt = "<|endoftext|>{instruction}"
    leading_tokens = 1
    image_size = 378

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> MoondreamConfig:
        """A twin of the same parts."""
        text = {key: value for key, value in TWIN_TEXT.items() if key != "num_key_value_heads"}
        return MoondreamConfig(
            vision_config=TWIN_VISION | {"image_size": image_size, "vision_use_head": False},
            text_config=text | {"vocab_size": vocabulary_size}, projector_size=128)

    @classmethod
    def load(cls, weights: str, options: Any) -> nn.Module:
        """moondream2 with its published weights, each renamed by `KEYS`."""
        if options.device_map is not None:
            raise ConfigError(f"backbone_options.device_map: got '{options.device_map}', expected none: this "
                              "backbone is composed of parts; leave it out and choose the policy's device")
        try:
            tensors = load_file(cached_file(weights, "model.safetensors"))
        except (OSError, SafetensorError) as problem:
            raise not_found(weights, MoondreamConfig.model_type, problem) from None
        vlm = cls.build(MoondreamConfig(**cls.published), options)
        load_published(vlm, tensors, weights)
        return vlm

    @classmethod
    def tokenizer(cls, config: ModelConfig, sentences: Iterable[str]) -> Tokenizer:
        """That of the hub, which keeps it apart from the weights; a folder holds its own."""
        if cls.options(config).weights in (None, cls.weights):
            moved = config.backbone_options | {"weights": TOKENIZER}
            config = config.model_copy(update={"backbone_options": moved})
        return super().tokenizer(config, sentences)

    @property
    def text_tower(self) -> nn.Module:
        """Phi, without its output layer."""
        return self.vlm.language_model.model

    @property
    def vision_tower(self) -> nn.Module:
        """The SigLIP vision model."""
        return self.vlm.vision_tower

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Images (M, 3, S, S) -> (M, n, D), one token per patch."""
        features = self.vision_tower(pixels_M3SS).last_hidden_state
        # An image of this size is its own only crop: the features of the whole and of the crops are the same.
        return self.vlm.projector(torch.cat([features, features], -1))

    def hidden_states(self, visual_BT: Tensor, **inputs: Tensor) -> Tensor:
        """(B, T, D), under an attention bias (B, 1, T, T) in place of the mask of padding."""
        mask = _mask(inputs["attention_mask"].bool(), visual_BT)
        lowest = torch.finfo(self.vlm.dtype).min
        bias = torch.zeros(mask.shape, dtype=self.vlm.dtype, device=mask.device).masked_fill(~mask, lowest)
        return super().hidden_states(visual_BT, **inputs | {"attention_mask": bias[:, None]})


def load_published(vlm: MoondreamVlm, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give `vlm` the weights that moondream2 published. Raises: ConfigError naming what does not map."""
    ours, unknown = {}, []
    for name, value in tensors.items():
        short = name.removeprefix("model.")
        module, suffix = re.fullmatch(r"(.*?)(\.weight|\.bias)?", short).groups(default="")
        place = re.search(r"\.(\d+)\.", module)
        target = KEYS.get(re.sub(r"\.\d+\.", ".#.", module))
        if target is None and not short.startswith(UNUSED):
            unknown.append(name)
        elif target is not None:
            target = target.replace("#", place[1] if place else "") + suffix
            parts = zip("qkv", value.chunk(3), strict=True) if "*" in target else [("", value)]
            ours |= {target.replace("*", letter): part for letter, part in parts}
    expected = vlm.state_dict()
    missing = sorted(expected.keys() - ours.keys())
    unknown += sorted(ours.keys() - expected.keys())
    wrong = sorted(name for name in ours.keys() & expected.keys()
                   if ours[name].numel() != expected[name].numel())
    if missing or unknown or wrong:
        raise ConfigError(f"weights: {source} is not moondream2 as published: missing "
                          f"{missing[:4] or 'none'}, not known {unknown[:4] or 'none'}, of another size "
                          f"{wrong[:4] or 'none'}; take vikhyatk/moondream2 of June 2025")
    vlm.load_state_dict({name: ours[name].reshape(value.shape) for name, value in expected.items()})


def _mask(real_BT: Tensor, visual_BT: Tensor) -> Tensor:
    """Which token (rows) sees which (columns), (B, T, T): earlier ones, and the images of a frame each other.

    What stands before the first image counts to it.
    """
    order = torch.arange(visual_BT.shape[1], device=visual_BT.device)
    begins = visual_BT & ~visual_BT.roll(1, -1) | (visual_BT & (order == 0))
    frame = begins.cumsum(-1)
    group = torch.where(visual_BT, frame, 0).masked_fill(frame == 0, 1)
    together = (group[:, :, None] == group[:, None, :]) & (group[:, :, None] > 0)
    return (together | (order[:, None] >= order[None, :])) & real_BT[:, None, :]

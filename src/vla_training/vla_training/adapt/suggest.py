"""A model and the memory of a GPU in, what of the model can be trained there out."""

from __future__ import annotations

from vla_policy.errors import ConfigError
from vla_policy.model.vla import VLAModel
from vla_training.adapt.config import AdaptConfig, LoraSettings
from vla_training.adapt.lora import target_layers
from vla_training.adapt.parts import parts_of

GIB = 2**30
FROZEN_BYTES, TRAINED_BYTES = 4, 16  # float32: the weight; with it its gradient and two moments of AdamW
STATE_SHARE = 0.7  # of the memory; the rest is for activations, which depend on the batch
CANDIDATES = (
    AdaptConfig(activation_checkpointing=True),
    AdaptConfig(activation_checkpointing=True, freeze=("vision",)),
    AdaptConfig(activation_checkpointing=True, lora=LoraSettings(rank=32)),
)


def suggest(model: VLAModel, memory_gib: float) -> AdaptConfig:
    """The most that can be trained of `model`, fresh or loaded, in one process on a GPU with `memory_gib`.

    All of it, all but the vision tower, or adapters: the first whose weights, gradients and optimizer state leave
    room for activations. Raises: ConfigError where not even adapters do.
    """
    needed = [_state_bytes(model, config) / STATE_SHARE / GIB for config in CANDIDATES]
    for config, gib in zip(CANDIDATES, needed, strict=True):
        if gib <= memory_gib:
            return config
    raise ConfigError(f"{model.config.backbone}: got a GPU with {memory_gib:g} GiB, expected at least {needed[-1]:.1f} "
                      "GiB for adapters beside float32 weights; use several GPUs with parallel: fsdp2, "
                      "adapt.lora.four_bit, or a smaller backbone")


def _state_bytes(model: VLAModel, config: AdaptConfig) -> int:
    """What weights, gradients and optimizer take, without averaged weights, for one of CANDIDATES."""
    parts = {part: sum(weight.numel() for weight in weights) for part, weights in parts_of(model).items()}
    trained = parts["head"] if config.lora else sum(n for part, n in parts.items() if part not in config.freeze)
    frozen = sum(parts.values()) - trained
    if config.lora:
        layers = target_layers(model.backbone, config.lora).values()
        trained += sum(config.lora.rank * (layer.in_features + layer.out_features) for layer in layers)
    return FROZEN_BYTES * frozen + TRAINED_BYTES * trained

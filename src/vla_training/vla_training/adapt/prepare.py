"""A fresh or loaded model and the `adapt` section in, the model ready for its optimizer out."""

from __future__ import annotations

from vla_policy.model.vla import VLAModel
from vla_training.adapt.checkpointing import checkpoint_layers
from vla_training.adapt.config import AdaptConfig
from vla_training.adapt.lora import add_adapters
from vla_training.adapt.parts import freeze, wrap_units


def prepare_model(model: VLAModel, config: AdaptConfig) -> VLAModel:
    """Freeze, add adapters, recompute activations, as `config` says; changes `model` and returns it.

    To be called once, after the weights are loaded and before the model moves to its device, is sharded, or gets an
    optimizer, which needs only what requires a gradient. Adapters are drawn from torch's random numbers.

    Raises: ConfigError for settings that this model cannot have, or that this machine cannot do.
    """
    if config.lora:
        add_adapters(model.backbone, config.lora)
    else:
        freeze(model, config)
    if config.activation_checkpointing:
        checkpoint_layers(wrap_units(model))
    return model

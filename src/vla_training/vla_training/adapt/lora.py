"""A backbone in, the same with low-rank adapters beside frozen layers out, by PEFT; and plain weights again.

Adapters are injected into the backbone itself, so that nothing else of the model knows of them. What is saved is
`merged`: the layers with their adapters added in, as the node loads them.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import nn

from vla_policy.errors import ConfigError, nearest
from vla_policy.model.backbones.base import Backbone
from vla_policy.model.vla import VLAModel
from vla_training.adapt.config import LoraSettings

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

ADAPTER = "default"


def add_adapters(backbone: Backbone, settings: LoraSettings) -> None:
    """Freeze the backbone but for `settings.train`, and give its target layers adapters that start at no effect.

    Raises: ConfigError for module names that no target part has, and where 4 bits cannot be had.
    """
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds, and only this needs it

    names = list(target_layers(backbone, settings))
    whole = [weight for part in settings.train for weight in backbone.parts()[part]]
    backbone.requires_grad_(False)
    if settings.four_bit:
        _keep_in_four_bits(backbone.vlm, names)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
                        target_modules=names)
    inject_adapter_in_model(config, backbone.vlm)
    for layer in _adapted(backbone).values():
        # Small updates are lost in bfloat16: adapters are float32 whatever the layer beside them is.
        layer.lora_A.float()
        layer.lora_B.float()
    for weight in whole:
        weight.requires_grad_(True)


def merged(model: VLAModel) -> VLAModel:
    """The model with every adapter added into its layer: no PEFT, the names and shapes of a bundle.

    `model` stays as it is. The two share all other weights; without adapters they are the same.
    """
    if not hasattr(model.backbone.vlm, "peft_config"):
        return model
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    plain = copy.deepcopy(model, shared)
    words = model.backbone.word_embedding.weight.dtype
    for name, layer in _adapted(plain).items():
        plain.set_submodule(name, _merge(layer, words))
    return plain


def _adapted(module: nn.Module) -> dict[str, LoraLayer]:
    """Layers with an adapter, by their place."""
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)}


@torch.no_grad()
def _merge(layer: LoraLayer, dequantised: torch.dtype) -> nn.Linear:
    """W + alpha / rank * B A, computed in float32, in the number type of W; in `dequantised` where W has 4 bits."""
    from peft.utils.integrations import dequantize_module_weight

    base = layer.get_base_layer()
    weight = dequantize_module_weight(base)
    dtype = weight.dtype if weight is base.weight else dequantised
    total = (weight.float() + layer.get_delta_weight(ADAPTER).float()).to(dtype)
    linear = nn.Linear(base.in_features, base.out_features, base.bias is not None, device="meta")
    linear.weight = nn.Parameter(total, requires_grad=False)
    if base.bias is not None:
        linear.bias = nn.Parameter(base.bias.detach().to(dtype), requires_grad=False)
    return linear


def target_layers(backbone: Backbone, settings: LoraSettings) -> dict[str, nn.Linear]:
    """The linear layers that get an adapter, by their place in the wrapped model.

    Raises: ConfigError for module names that no target part has, and for targets without a linear layer.
    """
    parts = backbone.parts()
    inside = {weight for part in settings.targets for weight in parts[part]}
    layers = {name: layer for name, layer in _linear_layers(backbone.vlm).items() if layer.weight in inside}
    if not layers:
        raise ConfigError(f"adapt.lora.targets: got {list(settings.targets)}, in which this backbone has no linear "
                          "layer; add text, or train the part whole by adapt.lora.train")
    if settings.modules == "auto":
        return layers
    known = sorted({_last(name) for name in layers})
    for module in settings.modules:
        if module not in known:
            raise ConfigError(f"adapt.lora.modules: got '{module}', which no linear layer of {list(settings.targets)} "
                              f"is called; {nearest(module, known)}")
    return {name: layer for name, layer in layers.items() if _last(name) in settings.modules}


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _linear_layers(vlm: nn.Module) -> dict[str, nn.Linear]:
    """Linear layers that are called as such; torch's own attention reads its weights past them."""
    hidden = {id(child) for module in vlm.modules() if isinstance(module, nn.MultiheadAttention)
              for child in module.modules()}
    return {name: module for name, module in vlm.named_modules()
            if isinstance(module, nn.Linear) and id(module) not in hidden}


def _keep_in_four_bits(vlm: nn.Module, names: list[str]) -> None:
    """Replace layers by ones whose weights turn into 4 bits (NF4) when they move to the GPU."""
    if find_spec("bitsandbytes") is None:
        raise ConfigError("adapt.lora.four_bit: got true, but the package bitsandbytes is not installed; run "
                          '`pip install "bitsandbytes>=0.50"` on a machine with an NVIDIA GPU, or leave four_bit out')
    if not torch.cuda.is_available():
        raise ConfigError("adapt.lora.four_bit: got true, but torch sees no NVIDIA GPU here; train on a machine with "
                          "one, or leave four_bit out")
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name in names:
        linear = vlm.get_submodule(name)
        four_bit = Linear4bit(linear.in_features, linear.out_features, linear.bias is not None,
                              compute_dtype=torch.bfloat16, device="meta")
        four_bit.weight = Params4bit(linear.weight.detach(), requires_grad=False, quant_type="nf4", module=four_bit)
        four_bit.bias = linear.bias
        vlm.set_submodule(name, four_bit)
    vlm.is_loaded_in_4bit = True  # how PEFT knows which of its layers to take

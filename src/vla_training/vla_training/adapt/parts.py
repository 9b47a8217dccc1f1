"""A model in, its parts out: how much of each is trained, which are frozen, which shards FSDP makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vla_policy.errors import ConfigError
from vla_policy.model.vla import VLAModel
from vla_training.adapt.config import AdaptConfig


@dataclass(frozen=True, slots=True)
class Share:
    """Of a part: the number of its weights, and of those that are trained."""

    weights: int
    trained: int


def parts_of(model: VLAModel) -> dict[str, list[nn.Parameter]]:
    """The parts of the backbone, and as `head` all else: formulation, action queries, action head."""
    parts: dict[str, list[nn.Parameter]] = dict(model.backbone.parts())
    backbone = {weight for weights in parts.values() for weight in weights}
    return parts | {"head": [weight for weight in model.parameters() if weight not in backbone]}


def trained_shares(model: VLAModel) -> dict[str, Share]:
    """How much of each part is trained; adapters count to the part that they are in."""
    return {part: Share(sum(weight.numel() for weight in weights),
                        sum(weight.numel() for weight in weights if weight.requires_grad))
            for part, weights in parts_of(model).items()}


def freeze(model: VLAModel, config: AdaptConfig) -> None:
    """Freeze what `config` names. Raises: ConfigError for more last layers than the text tower has."""
    parts = model.backbone.parts()
    for part in config.freeze:
        for weight in parts[part]:
            weight.requires_grad_(False)
    if not config.train_last_layers:
        return
    layers = model.backbone.text_layers
    if config.train_last_layers > len(layers):
        raise ConfigError(f"adapt.train_last_layers: got {config.train_last_layers}, expected at most the "
                          f"{len(layers)} layers of {model.config.backbone}'s text tower; lower it, or take text "
                          "out of adapt.freeze")
    for layer in layers[-config.train_last_layers:]:
        layer.requires_grad_(True)


def wrap_units(model: VLAModel) -> list[nn.Module]:
    """What FSDP shards and gathers one by one: the layers of both towers, which do not overlap.

    The rest (embeddings, tied weights among them, resampler, head) is one more group, that of the root.
    """
    return [*model.backbone.vision_layers, *model.backbone.text_layers]

"""A backbone's name in, its tiny random twin and inputs for it out, for the tests beside this."""

from __future__ import annotations

import torch
from torch import Tensor

from vla_policy.errors import ConfigError
from vla_policy.model.backbones.base import Backbone
from vla_policy.model.config import ModelConfig
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.strict import parse

torch.set_num_threads(1)  # small tensors on shared machines: more threads only get in each other's way

SIDE = 32
WORDS = 40  # size of the vocabulary, before the ids that a twin adds
BATCH, CAMERAS, TEXT, QUERIES = 2, 2, 6, 3


def config(name: str, **changes: object) -> ModelConfig:
    """A model's configuration around the twin of backbone `name`."""
    options = {"weights": "random-tiny"} | changes.pop("backbone_options", {})
    return parse(ModelConfig, {"backbone": name, "image_size": SIDE, "backbone_options": options} | changes,
                 "model", ConfigError)


def twin(name: str, **changes: object) -> Backbone:
    """The twin, in evaluation mode; its norms and biases are random too, so that none of them is idle."""
    torch.manual_seed(0)
    made = config(name, **changes)
    backbone = resolve(BACKBONES, name, "backbone").create(made, WORDS).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return backbone


def pixels() -> Tensor:
    """Normalised images (B, V, 3, S, S)."""
    return torch.randn(BATCH, CAMERAS, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def text_ids() -> Tensor:
    """Words (B, L)."""
    return torch.randint(3, WORDS, (BATCH, TEXT), generator=torch.Generator().manual_seed(2))


def query_ids() -> Tensor:
    """Words that stand for action queries, (B, Q)."""
    return torch.randint(3, WORDS, (BATCH, QUERIES), generator=torch.Generator().manual_seed(3))

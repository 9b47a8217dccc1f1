"""A name from a model file in, the class it stands for out. A new one is one line here.

The classes are named by their import path, so that a choice imports only what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vla_policy.errors import ConfigError, nearest

BACKBONES = {
    "tiny": "vla_policy.model.backbones.tiny:TinyBackbone",
}
FORMULATIONS = {
    "policy_head": "vla_policy.model.formulations.policy_head:PolicyHead",
}
HEADS = {
    "fc": "vla_policy.model.heads.fc:FcHead",
    "lstm": "vla_policy.model.heads.lstm:LstmHead",
}


def resolve(registry: Mapping[str, str], name: str, what: str) -> Any:
    """The class called `name`; `what` is the config key that asks for it.

    Raises: ConfigError naming the nearest.
    """
    if name not in registry:
        raise ConfigError(f"model.{what}: got '{name}'; {nearest(name, registry)}")
    module, _, attribute = registry[name].partition(":")
    return getattr(import_module(module), attribute)

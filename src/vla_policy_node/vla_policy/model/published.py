"""A backbone's name in, the keys of a model file that give it its published size or its twin's out; no weights.

With them a model of true size is built from random weights, as neither speed nor memory depends on their values.
"""

from __future__ import annotations

import json
from typing import Any

from vla_policy.errors import ConfigError, nearest
from vla_policy.model.registry import BACKBONES, resolve

TWIN = {"image_size": 32, "backbone_options": {"weights": "random-tiny"}, "head_options": {"hidden_size": 8}}
HEAD = {"hidden_size": 1024, "layers": 4, "skip": False, "decoder": "robovlms"}  # as RoboVLMs has it


def model_sizes(backbone: str, size: str) -> dict[str, Any]:
    """Keys beside `backbone` for a policy with an LSTM head; none for a backbone that has one size.

    size: published, twin, or one of the class's `other_sizes`. Raises: ConfigError for an unknown backbone or size,
    and for a published size that is not known here.
    """
    kind = resolve(BACKBONES, backbone, "backbone")
    if not hasattr(kind, "hf_class"):
        return {}
    if size == "twin":
        return TWIN
    if size not in ("published", *kind.other_sizes):
        raise ConfigError(f"size: got '{size}' for backbone {backbone}; "
                          f"{nearest(size, ('twin', 'published', *kind.other_sizes))}")
    other = kind.other_sizes.get(size)
    architecture = published_architecture(kind) if other is None else kind.hf_class.config_class(**other)
    if architecture is None:
        raise ConfigError(f"backbone {backbone}: the size of {kind.weights} is neither known here nor in the "
                          f"cache; run `hf download {kind.weights} config.json` where there is a network")
    return {"backbone_options": {"architecture": json.loads(architecture.to_json_string())}, "head_options": HEAD}


def published_architecture(backbone: Any) -> Any | None:
    """The configuration of a class's published checkpoint: what the adapter knows, else that of the cache or the hub;
    None where none has it.
    """
    known = getattr(backbone, "published", None)
    if known is not None:
        return backbone.hf_class.config_class(**known)
    try:
        return backbone.hf_class.config_class.from_pretrained(backbone.weights)
    except (OSError, ValueError):
        return None

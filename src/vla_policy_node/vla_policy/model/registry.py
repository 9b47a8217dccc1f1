"""A name from a model file in, the class it stands for out. A new one is one line here.

The classes are named by their import path, so that a choice imports only what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vla_policy.errors import ConfigError, nearest

BACKBONES = {
    "flamingo": "vla_policy.model.backbones.flamingo:Flamingo",
    "florence2": "vla_policy.model.backbones.florence2:Florence2",
    "gemma3": "vla_policy.model.backbones.gemma3:Gemma3",
    "idefics2": "vla_policy.model.backbones.idefics2:Idefics2",
    "idefics3": "vla_policy.model.backbones.idefics3:Idefics3",
    "internvl": "vla_policy.model.backbones.internvl:InternVL",
    "kosmos": "vla_policy.model.backbones.kosmos:Kosmos",
    "llava": "vla_policy.model.backbones.llava:Llava",
    "llava-next": "vla_policy.model.backbones.llava:LlavaNext",
    "llava-onevision": "vla_policy.model.backbones.llava:LlavaOneVision",
    "moondream": "vla_policy.model.backbones.moondream:Moondream",
    "ofa": "vla_policy.model.backbones.ofa:Ofa",
    "paligemma": "vla_policy.model.backbones.paligemma:PaliGemma",
    "paligemma-causal": "vla_policy.model.backbones.paligemma:CausalPaliGemma",
    "qwen-vl": "vla_policy.model.backbones.qwen_vl:Qwen25Vl",
    "qwen2-vl": "vla_policy.model.backbones.qwen_vl:Qwen2Vl",
    "qwen3-vl": "vla_policy.model.backbones.qwen_vl:Qwen3Vl",
    "smolvlm": "vla_policy.model.backbones.smolvlm:SmolVLM",
    "tiny": "vla_policy.model.backbones.tiny:TinyBackbone",
}
FORMULATIONS = {
    "one_step": "vla_policy.model.formulations.one_step:OneStep",
    "interleaved": "vla_policy.model.formulations.interleaved:Interleaved",
    "video": "vla_policy.model.formulations.video:Video",
    "policy_head": "vla_policy.model.formulations.policy_head:PolicyHead",
}
HEADS = {
    "fc": "vla_policy.model.heads.fc:FcHead",
    "lstm": "vla_policy.model.heads.lstm:LstmHead",
    "gpt": "vla_policy.model.heads.gpt:GptHead",
    "discrete": "vla_policy.model.heads.discrete:DiscreteHead",
    "diffusion": "vla_policy.model.heads.diffusion:DiffusionHead",
    "flow": "vla_policy.model.heads.flow:FlowHead",
}


def resolve(registry: Mapping[str, str], name: str, what: str) -> Any:
    """The class called `name`; `what` is the config key that asks for it.

    Raises: ConfigError naming the nearest.
    """
    if name not in registry:
        raise ConfigError(f"model.{what}: got '{name}'; {nearest(name, registry)}")
    module, _, attribute = registry[name].partition(":")
    return getattr(import_module(module), attribute)

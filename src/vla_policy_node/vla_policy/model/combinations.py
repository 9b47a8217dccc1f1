"""A configuration and its parts in; out: nothing, or one sentence on why they do not combine and what does.

                 one_step   interleaved   video   policy_head
    fc              x            x          x      window 1
    lstm, gpt                                         x
    diffusion       x            x          x         x
    flow            x            x          x         x
    discrete        x            x          x

A window is fused once: by the backbone (interleaved, video) or by the head (policy_head).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vla_policy.errors import ConfigError

if TYPE_CHECKING:
    from vla_policy.model.backbones.base import Backbone
    from vla_policy.model.config import ModelConfig
    from vla_policy.model.formulations.base import Formulation
    from vla_policy.model.heads.base import ActionHead


def check_combination(config: ModelConfig, backbone: type[Backbone], formulation: type[Formulation],
                      head: type[ActionHead]) -> None:
    """Raises: ConfigError naming the parts, the reason and the nearest thing that works."""
    _check_window(config)
    if head.action_space == "discrete":
        _check_discrete(config, backbone)
    _check_history(config, formulation, head)
    if config.action_space != head.action_space:
        discrete = head.action_space == "discrete"
        other = "fc, lstm, gpt, diffusion or flow" if discrete else "discrete"
        raise ConfigError(f"action_head '{config.action_head}' works in action_space {head.action_space}: "
                          f"got action_space {config.action_space}; set action_space {head.action_space}, or "
                          f"use action_head {other}")
    if config.formulation == "interleaved" and not backbone.interleaves:
        raise ConfigError("formulation 'interleaved' needs images among the words: backbone "
                          f"'{config.backbone}' looks at them from beside its sequence; use formulation "
                          "policy_head, or video")


def _check_window(config: ModelConfig) -> None:
    if config.formulation == "one_step" and config.history_length != 1:
        raise ConfigError("formulation 'one_step' sees one frame only: got history_length "
                          f"{config.history_length}, expected 1; set it to 1, or use formulation policy_head "
                          "with action_head lstm")


def _check_history(config: ModelConfig, formulation: type[Formulation], head: type[ActionHead]) -> None:
    if formulation.fuses_history and head.history == "always":
        raise ConfigError(f"action_head '{config.action_head}' fuses the frames of a window: formulation "
                          f"'{config.formulation}' leaves it none to fuse; use formulation policy_head, or "
                          "action_head fc")
    if not formulation.fuses_history and head.history == "never" and config.history_length != 1:
        raise ConfigError(f"action_head '{config.action_head}' reads one frame only: got history_length "
                          f"{config.history_length} with formulation '{config.formulation}', expected 1; set "
                          "it to 1, use action_head lstm, or formulation video")


def _check_discrete(config: ModelConfig, backbone: type[Backbone]) -> None:
    if config.formulation == "policy_head":
        raise ConfigError("action_head 'discrete' writes tokens into the backbone's sequence: formulation "
                          "'policy_head' keeps one vector of it; use formulation one_step, or interleaved")
    if config.head_options.get("decoding") != "autoregressive":
        return
    if not backbone.causal:
        raise ConfigError(f"head_options.decoding: got autoregressive, but in backbone '{config.backbone}' a "
                          "token sees those after it; use decoding parallel")
    if config.formulation == "interleaved":
        raise ConfigError("head_options.decoding: got autoregressive with formulation 'interleaved', where "
                          "every block would need the tokens written before; use decoding parallel, or "
                          "formulation video")

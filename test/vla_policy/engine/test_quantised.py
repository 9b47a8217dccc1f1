"""Linear layers in, rounded ones out: how far off they are, and where they are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from twin_models import plain, run_engine, twin

from vla_policy.engine import EngineOptions
from vla_policy.engine.quantised import Fp8Linear, Int8Linear, prepare_weights, replace_linears
from vla_policy.errors import ConfigError
from vla_policy.model.registry import BACKBONES as REGISTRY
from vla_policy.policy import Policy

BACKBONES = ("tiny", "kosmos", "qwen-vl", "florence2", "smolvlm")


@pytest.mark.parametrize("kind, bound", [(Int8Linear, 0.01), (Fp8Linear, 0.05)])
def test_a_rounded_layer_is_near_the_true_one(kind: type[nn.Module], bound: float) -> None:
    torch.manual_seed(0)
    linear, features = nn.Linear(64, 32), torch.randn(2, 5, 64)
    with torch.inference_mode():
        true, rounded = linear(features), kind(linear)(features)
    assert rounded.shape == true.shape and rounded.dtype == true.dtype
    assert 0 < (rounded - true).norm() / true.norm() < bound


@pytest.mark.parametrize("backbone", BACKBONES)
def test_int8_moves_actions_little(backbone: str) -> None:
    arm, _ = plain(twin(backbone), 4)
    _, actions = run_engine(twin(backbone), EngineOptions(dtype="int8"), 4)
    error = np.abs(actions[-1].arm[0] - arm).max() / np.abs(arm).max()
    assert 0 < error < 0.1


def test_only_plain_linear_layers_are_replaced() -> None:
    model = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16)), "odd": nn.Linear(16, 5),
                           "kept": nn.Linear(16, 16), "attention": nn.MultiheadAttention(16, 2)})
    assert replace_linears(model, Fp8Linear, {model["kept"], None}) == 1
    assert isinstance(model["inner"][0], Fp8Linear) and type(model["kept"]) is type(model["odd"]) is nn.Linear
    assert next(model["inner"].parameters()).dtype is torch.float32


@pytest.mark.parametrize("backbone", [name for name in REGISTRY if name != "tiny"])
def test_bfloat16_is_what_transformers_makes_of_it(backbone: str) -> None:
    """Weights and buffers have the types of a model that was built in bfloat16; rotary frequencies stay exact."""
    turned = prepare_weights(twin(backbone).model, torch.device("cpu"), "bfloat16").backbone.vlm
    built = twin(backbone, backbone_options={"weights": "random-tiny", "dtype": "bfloat16"}).model.backbone.vlm
    types = [{name: part.dtype for name, part in (*vlm.named_parameters(), *vlm.named_buffers())}
             for vlm in (turned, built)]
    assert types[0] == types[1] and torch.bfloat16 in types[0].values()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_bfloat16_moves_actions_little(backbone: str) -> None:
    arm, _ = plain(twin(backbone), 4)
    _, actions = run_engine(twin(backbone), EngineOptions(dtype="bfloat16"), 4)
    assert 0 < np.abs(actions[-1].arm[0] - arm).max() / np.abs(arm).max() < 0.1


def test_fp8_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(ConfigError, match="dtype fp8: got device cpu.*compute capability 9.0.*bfloat16 or int8"):
        Policy(twin(), dtype="fp8")

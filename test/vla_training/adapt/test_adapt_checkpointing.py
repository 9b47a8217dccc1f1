"""Activations computed again: the same loss and gradients as kept ones, for every backbone, adapter and dropout."""

from __future__ import annotations

import pytest
import torch
from adapted_twins import adapted, loss_of, outputs
from torch import Tensor

from vla_policy.checkpoint import Bundle
from vla_policy.model.registry import BACKBONES
from vla_training.adapt import LoraSettings, merged, wrap_units

EXACT = {"atol": 0.0, "rtol": 0.0}
CHOICES = {"full": {}, "lora": {"lora": LoraSettings(rank=2, dropout=0.5)}}


def gradients(bundle: Bundle) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(5)  # dropout draws
    loss = loss_of(bundle)
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in bundle.model.named_parameters()
                           if weight.grad is not None}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_equal_those_of_kept_activations(backbone: str, choice: str) -> None:
    (kept_loss, kept), (loss, again) = (
        gradients(adapted(backbone, activation_checkpointing=on, **CHOICES[choice])) for on in (False, True))
    torch.testing.assert_close(loss, kept_loss, **EXACT)
    assert kept and kept.keys() == again.keys()
    for name in kept:
        torch.testing.assert_close(again[name], kept[name], **EXACT)


@pytest.mark.parametrize("freeze", [(), ("text",)], ids=["trained", "frozen"])
def test_layers_run_again_on_the_way_back_only(freeze: tuple[str, ...]) -> None:
    bundle = adapted("paligemma", activation_checkpointing=True, freeze=freeze)
    runs = []
    bundle.model.backbone.text_layers[0].self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    outputs(bundle.model, bundle)
    once = len(runs)
    loss = loss_of(bundle)
    assert len(runs) == 2 * once
    loss.backward()
    assert len(runs) == 3 * once


def test_names_of_weights_stay() -> None:
    plain, again = (adapted("qwen-vl", activation_checkpointing=on).model for on in (False, True))
    assert plain.state_dict().keys() == again.state_dict().keys()
    assert len(wrap_units(again)) == len(wrap_units(plain))


def test_a_merged_copy_runs_its_own_layers() -> None:
    bundle = adapted("kosmos", activation_checkpointing=True, lora=LoraSettings(rank=2))
    plain = merged(bundle.model)
    with torch.no_grad():
        for weight in plain.backbone.text_layers[0].parameters():
            if weight not in set(bundle.model.parameters()):
                weight.zero_()
    said, emptied = outputs(bundle.model, bundle), outputs(plain, bundle)
    assert not torch.allclose(said.arm_BWKA, emptied.arm_BWKA)

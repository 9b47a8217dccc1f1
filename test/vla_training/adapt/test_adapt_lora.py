"""Adapters: only they and the head learn; merged, they are a plain bundle that says what the adapted model says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapted_twins import adapted, copies, outputs, train_step, twin
from safetensors import safe_open

from vla_policy.checkpoint import WEIGHTS, load_bundle, save_bundle
from vla_policy.errors import ConfigError
from vla_policy.model.registry import BACKBONES
from vla_training.adapt import AdaptConfig, LoraSettings, merged, prepare_model, trained_shares
from vla_training.adapt import lora as lora_module

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}  # float32: another order of sums through two towers
MARKS = ("lora", "base_layer")
LORA = {"rank": 2, "targets": ("text", "resampler"), "dropout": 0.1}


def is_adapter(name: str) -> bool:
    return "lora_" in name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_merged_bundle_is_plain_and_says_the_same(backbone: str, tmp_path: Path) -> None:
    targets = ("text", "vision") if backbone not in ("ofa",) else ("text",)  # a ResNet has no linear layer
    bundle = adapted(backbone, lora=LoraSettings(rank=2, targets=targets))
    untouched = outputs(twin(backbone).model, bundle)
    torch.testing.assert_close(outputs(bundle.model, bundle).arm_BWKA, untouched.arm_BWKA, **TOLERANCE)
    train_step(bundle)
    before, said = copies(bundle.model), outputs(bundle.model, bundle)
    assert not torch.allclose(said.arm_BWKA, untouched.arm_BWKA, **TOLERANCE)
    plain = merged(bundle.model)
    after = bundle.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    object.__setattr__(bundle, "model", plain)
    save_bundle(tmp_path / "bundle", bundle)
    with safe_open(tmp_path / "bundle" / WEIGHTS, "pt") as file:
        assert not [name for name in file.keys() if any(mark in name for mark in MARKS)]  # noqa: SIM118
    loaded = outputs(load_bundle(tmp_path / "bundle").model, bundle)
    torch.testing.assert_close(loaded.arm_BWKA, said.arm_BWKA, **TOLERANCE)
    torch.testing.assert_close(loaded.gripper_BWK, said.gripper_BWK, **TOLERANCE)


@pytest.mark.parametrize("backbone", ["kosmos", "paligemma", "qwen-vl", "florence2", "moondream"])
def test_only_adapters_and_head_learn(backbone: str) -> None:
    bundle = adapted(backbone, lora=LoraSettings(**LORA))
    before = copies(bundle.model)
    train_step(bundle)
    for name, weight in bundle.model.named_parameters():
        learns = is_adapter(name) or not name.startswith("backbone.")
        assert weight.requires_grad == learns, name
        assert learns or torch.equal(weight, before[name]), f"{name} changed"
    moved = {name for name, weight in bundle.model.named_parameters() if not torch.equal(weight, before[name])}
    assert any(is_adapter(name) for name in moved) and "formulation.action_query" in moved
    shares = trained_shares(bundle.model)
    assert shares["vision"].trained == shares["embeddings"].trained == 0 < shares["text"].trained


def test_parts_can_be_trained_whole_beside_adapters() -> None:
    shares = trained_shares(adapted("kosmos", lora=LoraSettings(rank=2, train=("resampler", "embeddings"))).model)
    assert shares["resampler"].trained == shares["resampler"].weights
    assert shares["embeddings"].trained == shares["embeddings"].weights
    assert 0 < shares["text"].trained < shares["text"].weights


def test_modules_are_chosen_by_name() -> None:
    bundle = adapted("paligemma", lora=LoraSettings(rank=2, modules=("q_proj", "v_proj")))
    places = {name.split(".lora_A")[0].rpartition(".")[2] for name in bundle.model.state_dict() if is_adapter(name)
              if "lora_A" in name}
    assert places == {"q_proj", "v_proj"}


def test_adapters_of_a_half_precision_model_are_float32() -> None:
    bundle = twin("kosmos")
    bundle.model.backbone.vlm.to(torch.bfloat16)
    prepare_model(bundle.model, AdaptConfig(lora=LoraSettings(rank=2)))
    kinds = {is_adapter(name): weight.dtype for name, weight in bundle.model.backbone.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    train_step(bundle)
    plain = merged(bundle.model)
    assert {weight.dtype for weight in plain.backbone.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("backbone", "settings", "expected"), [
    ("kosmos", {"modules": ("q_porj",)}, r"'q_porj'.*did you mean 'q_proj'"),
    ("ofa", {"targets": ("vision",)}, "no linear layer; add text"),
])
def test_adapters_that_go_nowhere_are_refused(backbone: str, settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        prepare_model(twin(backbone).model, AdaptConfig(lora=LoraSettings(**settings)))


@pytest.mark.parametrize(("installed", "expected"), [
    (None, "package bitsandbytes is not installed.*machine with an NVIDIA GPU"),
    ("somewhere", "torch sees no NVIDIA GPU here.*leave four_bit out"),
])
def test_four_bits_without_package_or_gpu_are_refused(
    installed: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_module, "find_spec", lambda _: installed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=expected):
        prepare_model(twin("kosmos").model, AdaptConfig(lora=LoraSettings(four_bit=True)))


def test_a_model_without_adapters_is_its_own_merge() -> None:
    model = adapted("tiny", freeze=("vision",)).model
    assert merged(model) is model

"""Every backbone's parts: each weight in one; frozen ones get no gradient and stay, the others learn; FSDP's units."""

from __future__ import annotations

import pytest
import torch
from adapted_twins import adapted, copies, loss_of, train_step, twin

from vla_policy.errors import ConfigError
from vla_policy.model.registry import BACKBONES
from vla_policy.strict import parse
from vla_training.adapt import AdaptConfig, prepare_model, trained_shares, wrap_units
from vla_training.adapt.parts import parts_of

CHOICES = {"vision": {"freeze": ("vision", "embeddings")},
           "text": {"freeze": ("text", "resampler"), "train_last_layers": 1}}
PATCHES_SHARE = 0.5  # twins are small: their patch embeddings weigh as much as a layer


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_weight_is_in_one_part(backbone: str) -> None:
    model = twin(backbone).model
    parts = parts_of(model)
    listed = [weight for weights in parts.values() for weight in weights]
    assert len(listed) == len(set(listed)), "a weight is in two parts"
    assert set(listed) == set(model.parameters())
    assert all(parts.values()), f"empty: {[part for part, weights in parts.items() if not weights]}"
    assert set(model.backbone.word_embedding.parameters()) <= set(parts["embeddings"])
    assert model.formulation.action_query in set(parts["head"])


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_parts_stay_and_the_others_learn(backbone: str, choice: str) -> None:
    bundle = adapted(backbone, **CHOICES[choice])
    parts, before = parts_of(bundle.model), copies(bundle.model)
    names = {weight: name for name, weight in bundle.model.named_parameters()}
    last = set(bundle.model.backbone.text_layers[-1].parameters()) if choice == "text" else set()
    train_step(bundle)
    for part, weights in parts.items():
        frozen = [weight for weight in weights if part in CHOICES[choice]["freeze"] and weight not in last]
        for weight in frozen:
            assert weight.grad is None, f"{names[weight]} got a gradient"
            assert torch.equal(weight, before[names[weight]]), f"{names[weight]} changed"
        free = [weight for weight in weights if weight not in set(frozen)]
        moved = [not torch.equal(weight, before[names[weight]]) for weight in free]
        assert any(moved) or not free, f"nothing in {part} learnt"
        if part == "text":
            assert free, "the last layer is not trained"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_towers_stay_in_evaluation_mode(backbone: str) -> None:
    bundle = adapted(backbone, freeze=("vision", "text", "resampler"))
    layers = wrap_units(bundle.model)
    for model in (bundle.model, bundle.model.eval().train()):
        assert not any(module.training for layer in layers for module in layer.modules())
        assert model.training and model.head.training and model.backbone.word_embedding.training


def test_frozen_batch_norms_count_nothing() -> None:
    counts = {}
    for frozen in ((), ("vision",)):
        bundle = adapted("ofa", freeze=frozen)
        train_step(bundle)
        counts[frozen] = [int(value) for name, value in bundle.model.named_buffers() if "num_batches" in name]
    assert all(counts[()]) and not any(counts[("vision",)])


def test_shares_say_what_is_trained() -> None:
    bundle = adapted("kosmos", freeze=("vision",))
    shares = trained_shares(bundle.model)
    assert shares["vision"].trained == 0 < shares["vision"].weights
    assert shares["text"].trained == shares["text"].weights
    assert sum(share.weights for share in shares.values()) == sum(w.numel() for w in bundle.model.parameters())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_units_are_called_cover_most_and_do_not_overlap(backbone: str) -> None:
    bundle = twin(backbone)
    units, called = wrap_units(bundle.model), set()
    inside = [weight for unit in units for weight in unit.parameters()]
    assert len(inside) == len(set(inside)), "two units share a weight"
    towers = [weight for part in ("vision", "text") for weight in bundle.model.backbone.parts()[part]]
    assert sum(w.numel() for w in inside) > PATCHES_SHARE * sum(w.numel() for w in towers)
    for unit in units:  # FSDP gathers a unit's weights in a hook, which runs only where the unit itself is called
        unit.register_forward_pre_hook(lambda module, _: called.add(module))
    loss_of(bundle)
    assert called == set(units)


@pytest.mark.parametrize(("settings", "expected"), [
    ({"freeze": ["visoin"]}, r"freeze.*visoin.*'vision', 'resampler', 'text' or 'embeddings'"),
    ({"freezee": ["vision"]}, "unknown key 'freezee'; did you mean 'freeze'"),
    ({"train_last_layers": 2}, "add text to freeze"),
    ({"lora": {}, "freeze": ["vision"]}, "lora.train"),
    ({"lora": {"targets": ["text"], "train": ["text"]}}, "adapt a part, or train it whole"),
    ({"lora": {"rank": 0}}, "rank"),
])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse(AdaptConfig, settings, "adapt", ConfigError)


def test_more_last_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 3, expected at most the 2 layers of kosmos"):
        prepare_model(twin("kosmos").model, AdaptConfig(freeze=("text",), train_last_layers=3))

"""What a GPU's memory allows: counts are those of the prepared model; less memory never trains more."""

from __future__ import annotations

import pytest
import torch
from adapted_twins import twin
from policies import tabletop

from vla_policy.errors import ConfigError
from vla_policy.model.vla import build_model
from vla_training.adapt import prepare_model, suggest, trained_shares
from vla_training.adapt.suggest import CANDIDATES, FROZEN_BYTES, GIB, STATE_SHARE, TRAINED_BYTES
from vla_training.bench_finetune import VOCABULARY, model_config


def counted_gib(backbone: str, candidate: int) -> float:
    """Memory for which a candidate is just right, by the weights of a model prepared so."""
    shares = trained_shares(prepare_model(twin(backbone).model, CANDIDATES[candidate])).values()
    trained = sum(share.trained for share in shares)
    frozen = sum(share.weights for share in shares) - trained
    return (FROZEN_BYTES * frozen + TRAINED_BYTES * trained) / STATE_SHARE / GIB


@pytest.mark.parametrize("backbone", ["kosmos", "paligemma", "florence2"])
@pytest.mark.parametrize("candidate", [0, 1])
def test_each_candidate_is_taken_from_the_memory_on_that_it_needs(backbone: str, candidate: int) -> None:
    gib, model = counted_gib(backbone, candidate), twin(backbone).model
    assert suggest(model, gib * 1.001) == CANDIDATES[candidate]
    assert suggest(model, 1e3) == CANDIDATES[0]


def test_adapters_come_last_and_then_a_refusal() -> None:
    with torch.device("meta"):
        model = build_model(model_config("kosmos", window=8, twin=False), tabletop(), VOCABULARY)
    wanted = [suggest(model, memory) for memory in (80, 40, 32, 16)]
    assert wanted == [CANDIDATES[0], CANDIDATES[0], CANDIDATES[1], CANDIDATES[2]]
    with pytest.raises(ConfigError, match="got a GPU with 8 GiB, expected at least .* GiB for adapters"):
        suggest(model, 8)


def test_the_count_of_adapters_is_that_of_the_prepared_model() -> None:
    gib, model = counted_gib("kosmos", 2), twin("kosmos").model
    with pytest.raises(ConfigError, match="expected at least"):
        suggest(model, gib * 0.999)
    assert suggest(model, gib * 1.001) == CANDIDATES[2]

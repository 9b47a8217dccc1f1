"""The adapter of docs/new-backbone.md in; its parts, adapters, recomputed activations and units out, for nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from adapted_twins import inputs
from test_matrix import bundle_of
from test_new_backbone import page_followed, twin_file

from vla_training.adapt import AdaptConfig, LoraSettings, merged, prepare_model, trained_shares, wrap_units

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def test_an_adapter_of_thirty_lines_is_adapted_like_all_others(tmp_path: Path) -> None:
    with page_followed(tmp_path):
        bundle = bundle_of(twin_file())
        shares = trained_shares(bundle.model)
        assert all(share.weights for share in shares.values()), f"an empty part: {shares}"
        assert sum(share.weights for share in shares.values()) == sum(w.numel() for w in bundle.model.parameters())
        assert len(wrap_units(bundle.model)) == 4  # two layers in each tower of the twin
        lora = LoraSettings(rank=2, targets=("text", "vision", "resampler"))
        prepare_model(bundle.model, AdaptConfig(lora=lora, activation_checkpointing=True))
        for name, weight in bundle.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        with torch.inference_mode():
            said, plain = bundle.model(*inputs(bundle)), merged(bundle.model)(*inputs(bundle))
    torch.testing.assert_close(plain.arm_BWKA, said.arm_BWKA, **TOLERANCE)
    assert {part for part, share in trained_shares(bundle.model).items() if share.trained} == \
        {"text", "vision", "resampler", "head"}

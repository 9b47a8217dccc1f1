"""The fine-tuning benchmark: twins run on the CPU in every mode that needs no GPU; without a GPU it says so."""

from __future__ import annotations

import pytest
import torch
import yaml

from vla_policy.models import published_parameters
from vla_training import bench_finetune
from vla_training.adapt import AdaptConfig
from vla_training.adapt.suggest import CANDIDATES
from vla_training.bench_finetune import VOCABULARY, main, model_config

KOSMOS = ["--backbone", "kosmos"]
QUICK = ["--twin", "--steps", "1", "--warmup", "0", "--batch-size", "1", "--window", "2"]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("backbone", ["kosmos", "tiny"])
def test_a_twin_runs_in_every_mode(backbone: str, capsys: pytest.CaptureFixture[str]) -> None:
    modes = ["full", "freeze-vision", "lora"]
    assert main([*QUICK, "--backbone", backbone, "--activation-checkpointing", "--mode", *modes]) == 0
    shown = capsys.readouterr().out
    assert all(mode in shown for mode in modes) and "no figures of the model" in " ".join(shown.split())


@pytest.mark.parametrize(("arguments", "expected"), [
    (KOSMOS, "torch sees no NVIDIA GPU here"),
    ([*QUICK, "--backbone", "kosmoss"], "did you mean 'kosmos'"),
    ([*QUICK, *KOSMOS, "--mode", "qlora"], "adapt.lora.four_bit"),
    ([*KOSMOS, "--suggest", "8"], "got a GPU with 8 GiB, expected at least"),
])
def test_what_cannot_run_is_refused_in_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert expected in capsys.readouterr().out


def test_what_fits_a_gpu_is_said_as_a_part_of_a_training_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*KOSMOS, "--suggest", "16"]) == 0
    assert AdaptConfig(**yaml.safe_load(capsys.readouterr().out)["adapt"]) == CANDIDATES[2]


def test_the_model_has_its_published_size() -> None:
    with torch.device("meta"):
        model = bench_finetune.build_model(
            model_config("kosmos", window=8, twin=False),
            bench_finetune.load_contract(bench_finetune.find_contract("tabletop")), VOCABULARY)
    assert sum(weight.numel() for weight in model.backbone.parameters()) == published_parameters("kosmos")

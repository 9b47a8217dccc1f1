"""The three strategies as shipped: their files load, and each trains for two steps on data standing in for theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from policies import CONFIG
from stand_ins import stand_in_file

from vla_policy.checkpoint import Bundle, load_bundle
from vla_policy.contract import load_contract
from vla_training.config import load_training_file
from vla_training.train import main

STRATEGIES = ("pretrain_mixed", "posttrain", "finetune")
ROBOT = "ur5e"
# What RoboVLMs trains with.
PUBLISHED = {"learning_rate": 2e-5, "weight_decay": 0.0, "schedule": "constant", "epochs": 5, "precision": "bf16",
             "warmup_ratio": 0.25 / 5}


def shipped(strategy: str) -> Path:
    return CONFIG / "training" / f"{strategy}.yaml"


def trained(strategy: str, folder: Path, **changes: object) -> Bundle:
    folder.mkdir()
    contract = load_contract(CONFIG / "robots" / f"{ROBOT}.yaml")
    file = stand_in_file(shipped(strategy), folder, contract, changes)
    assert main([str(file), "--robot", ROBOT, "--output", str(folder / "run"), "--device", "cpu"]) == 0
    return load_bundle(folder / "run" / "bundle")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shipped_files_say_what_was_published(strategy: str) -> None:
    _, training = load_training_file(shipped(strategy))
    assert {key: getattr(training, key) for key in PUBLISHED} == PUBLISHED
    assert training.augmentation.of("static").shift_px == 10
    assert strategy != "finetune" or training.augmentation.of("wrist").shift_px == 4


def test_post_training_keeps_the_model_of_pre_training() -> None:
    assert load_training_file(shipped("pretrain_mixed"))[0].model == load_training_file(shipped("posttrain"))[0].model


def test_pre_training_mixes_robots_and_post_training_goes_on_from_it(tmp_path: Path) -> None:
    first = trained("pretrain_mixed", tmp_path / "first")
    assert first.provenance["steps"] == 2
    then = trained("posttrain", tmp_path / "then", start=str(tmp_path / "first/run/bundle"))
    assert then.action_normalizer == first.action_normalizer
    moved = [name for name, value in then.model.state_dict().items() if not value.equal(first.model.state_dict()[name])]
    assert moved, "post-training changed nothing"


def test_direct_fine_tuning_by_adapters_gives_a_plain_bundle(tmp_path: Path) -> None:
    commented = re.search(r"^  # (adapt: .*)$", shipped("finetune").read_text(), re.MULTILINE)
    bundle = trained("finetune", tmp_path / "run", **yaml.safe_load(commented[1]))
    assert bundle.config.cameras == ("static", "wrist")
    assert not [name for name in bundle.model.state_dict() if "lora" in name]

"""Model files in; out: a checked configuration, or one sentence that names the mistake and what works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from policies import CONFIG, model_file, tabletop
from vla_policy.errors import ConfigError, ContractError
from vla_policy.model.config import load_model_file
from vla_policy.model.vla import build_model

SEED_SCHEMA = {
    "model": {"backbone": "tiny", "action_head": "lstm", "history_length": 16, "action_chunk_size": 10},
    "training": {"batch_size": 128, "learning_rate": 1e-4, "epochs": 5, "warmup_ratio": 0.25},
}


@pytest.mark.parametrize("path", sorted((CONFIG / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_model_file_loads(path: Path) -> None:
    assert load_model_file(path).model.action_chunk_size >= 1


def test_the_short_schema_loads_as_json(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(SEED_SCHEMA))
    file = load_model_file(tmp_path / "model.json")
    assert (file.model.history_length, file.model.action_chunk_size) == (16, 10)
    assert file.training == SEED_SCHEMA["training"]


@pytest.mark.parametrize(("changes", "parts"), [
    ({"history_lenght": 4}, ["model.history_lenght", "did you mean 'history_length'"]),
    ({"backbone": "tinny"}, ["got 'tinny'", "did you mean 'tiny'"]),
    ({"action_head": "lsmt"}, ["got 'lsmt'", "did you mean 'lstm'"]),
    ({"formulation": "policy-head"}, ["did you mean 'policy_head'"]),
    ({"action_head": "fc", "head_options": {}}, ["history_length 4", "set it to 1", "lstm"]),
    ({"backbone_options": {"widht": 32}}, ["widht", "did you mean 'width'"]),
    ({"backbone_options": {"width": 30, "heads": 4}}, ["got 30", "use 32"]),
    ({"head_options": {"layer": 2}}, ["did you mean 'layers'"]),
    ({"image_size": 100}, ["multiple of 8", "use 96"]),
    ({"execute_rows": 9}, ["at most action_chunk_size 8"]),
    ({"cameras": ["static", "static"]}, ["each camera once"]),
    ({"cameras": []}, ["model.cameras"]),
    ({"history_length": 0}, ["model.history_length", "greater than or equal to 1"]),
    ({"action_space": "discreet"}, ["model.action_space", "continuous"]),
    ({"proprioception": False}, ["proprioception_joints", "set it true"]),
])
def test_mistakes_are_named(changes: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        model_file(**changes)
    for part in parts:
        assert part in str(error.value)


def test_cameras_and_joints_must_be_the_contracts() -> None:
    with pytest.raises(ContractError, match="'top'.*known: static, wrist"):
        build_model(model_file(cameras=["top"]).model, tabletop(), 10)
    with pytest.raises(ContractError, match="did you mean 'finger_joint'"):
        build_model(model_file(proprioception_joints=["finger"]).model, tabletop(), 10)

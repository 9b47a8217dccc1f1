"""Model files in; out: a checked configuration, or one sentence that names the mistake and what works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from policies import CONFIG, model_file, tabletop

from vla_policy.errors import ConfigError, ContractError
from vla_policy.model.config import ModelConfig, load_model_file
from vla_policy.model.registry import BACKBONES
from vla_policy.model.vla import build_model
from vla_policy.strict import parse

SEED_SCHEMA = {
    "model": {"backbone": "tiny", "action_head": "lstm", "history_length": 16, "action_chunk_size": 10},
    "training": {"batch_size": 128, "learning_rate": 1e-4, "epochs": 5, "warmup_ratio": 0.25},
}


@pytest.mark.parametrize("path", sorted((CONFIG / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_model_file_loads(path: Path) -> None:
    assert load_model_file(path).model.action_chunk_size >= 1


def test_every_backbone_has_a_model_file() -> None:
    files = [load_model_file(path).model.backbone for path in (CONFIG / "models").glob("*.yaml")]
    assert set(files) == set(BACKBONES)


@pytest.mark.parametrize(("name", "write"), [("model.json", json.dumps), ("model.yaml", yaml.safe_dump)])
@pytest.mark.parametrize(("backbone", "image_size"), [("tiny", 112), ("kosmos", 224)])
def test_the_short_schema_loads(tmp_path: Path, name: str, write: Callable[[object], str], backbone: str,
                                image_size: int) -> None:
    schema = SEED_SCHEMA | {"model": SEED_SCHEMA["model"] | {"backbone": backbone}}
    (tmp_path / name).write_text(write(schema))
    file = load_model_file(tmp_path / name)
    assert (file.model.history_length, file.model.action_chunk_size) == (16, 10)
    assert (file.model.formulation, file.model.action_space) == ("policy_head", "continuous")
    assert file.model.image_size == image_size
    assert file.training == SEED_SCHEMA["training"]


def test_what_a_file_leaves_open_follows_from_its_parts() -> None:
    model = parse(ModelConfig, {"formulation": "one_step", "action_head": "discrete"}, "model", ConfigError)
    assert (model.action_space, model.history_length) == ("discrete", 1)


def test_the_published_best_model_is_there() -> None:
    model = load_model_file(CONFIG / "models" / "robovlms_kosmos_calvin.yaml").model
    assert (model.backbone, model.formulation, model.history_length, model.action_chunk_size) == (
        "kosmos", "policy_head", 16, 10)
    assert model.cameras == ("wrist", "static")


@pytest.mark.parametrize(("changes", "parts"), [
    ({"history_lenght": 4}, ["model.history_lenght", "did you mean 'history_length'"]),
    ({"backbone": "tinny"}, ["got 'tinny'", "did you mean 'tiny'"]),
    ({"action_head": "lsmt"}, ["got 'lsmt'", "did you mean 'lstm'"]),
    ({"formulation": "policy-head"}, ["did you mean 'policy_head'"]),
    ({"action_head": "fc", "head_options": {}}, ["history_length 4", "set it to 1", "lstm"]),
    ({"formulation": "one_step", "action_head": "fc", "head_options": {}},
     ["one_step", "history_length 4", "set it to 1"]),
    ({"formulation": "video"}, ["'lstm' fuses", "'video'", "policy_head", "fc"]),
    ({"formulation": "one_step", "history_length": 1}, ["'lstm' fuses", "'one_step'", "action_head fc"]),
    ({"formulation": "interleaved", "action_head": "fc", "head_options": {}},
     ["'interleaved'", "'tiny'", "video"]),
    ({"action_head": "discrete", "head_options": {}, "action_space": "discrete"},
     ["policy_head", "use formulation one_step"]),
    ({"formulation": "video", "action_head": "discrete", "head_options": {}},
     ["action_space continuous", "set action_space discrete"]),
    ({"action_space": "discrete"}, ["'lstm' works in action_space continuous", "action_head discrete"]),
    ({"formulation": "video", "action_head": "discrete", "action_space": "discrete",
      "head_options": {"decoding": "autoregressive"}}, ["'tiny'", "use decoding parallel"]),
    ({"backbone": "kosmos", "backbone_options": {}, "formulation": "interleaved", "action_head": "discrete",
      "action_space": "discrete", "head_options": {"decoding": "autoregressive"}},
     ["'interleaved'", "formulation video"]),
    ({"action_head": "gpt", "head_options": {"width": 30, "heads": 4}}, ["got 30 for 4 heads", "use 32"]),
    ({"action_head": "flow", "head_options": {"step": 4}}, ["did you mean 'steps'"]),
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

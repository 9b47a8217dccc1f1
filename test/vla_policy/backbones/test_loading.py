"""Checkpoints in folders in; out: the same model, or one sentence that says what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import bundle, observation
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Core
from tokenizers import pre_tokenizers
from tokenizers.models import Unigram
from twins import SIDE, WORDS, config, pixels, query_ids, text_ids, twin

from vla_policy.checkpoint import load_bundle, save_bundle
from vla_policy.errors import ConfigError, InstructionError
from vla_policy.model.backbones.base import Backbone
from vla_policy.model.backbones.kosmos import Kosmos
from vla_policy.model.backbones.paligemma import PaliGemma
from vla_policy.policy import Policy

VOCABULARY = ["<unk>", "<s>", "<grounding>", "An", "image", "of", "a", "robot", "pick", "up", "the", "red",
              "block"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as one finds it: a Kosmos-2 of the twin's size, with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("checkpoint")
    twin("kosmos").vlm.save_pretrained(folder)
    core = Core(Unigram([(word, -1.0) for word in VOCABULARY], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(["<s>", "<grounding>"])
    core.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def load(kind: type[Backbone], weights: Path | str, image_size: int = SIDE, **options: object) -> Backbone:
    made = config("kosmos", image_size=image_size, backbone_options=options | {"weights": str(weights)})
    return kind.create(made, WORDS)


@torch.inference_mode()
def test_a_folder_loads_as_it_was_saved(folder: Path) -> None:
    loaded, expected = load(Kosmos, folder).eval(), twin("kosmos")
    arguments = torch.ones_like(text_ids()).bool(), expected.word_embedding(query_ids())
    hidden, reference = (one.fuse(one.encode_images(pixels()), one.word_embedding(text_ids()), *arguments)
                         for one in (loaded, expected))
    assert torch.equal(hidden, reference)


def test_number_type_and_attention_are_chosen(folder: Path) -> None:
    loaded = load(Kosmos, folder, dtype="bfloat16", attention_implementation="eager", device_map="cpu")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert loaded.vlm.config._attn_implementation == "eager"


def test_another_models_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="model_type 'kosmos-2', expected 'paligemma'; choose the backbone"):
        load(PaliGemma, folder)


def test_folders_without_a_checkpoint_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds nothing, expected a checkpoint of model_type 'kosmos-2'"):
        load(Kosmos, tmp_path)
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(ConfigError, match=r"holds \['config.json'\], expected .*model.safetensors"):
        load(Kosmos, tmp_path)
    with pytest.raises(ConfigError, match="no folder .*nowhere, expected a checkpoint"):
        load(Kosmos, tmp_path / "nowhere")


def test_missing_weights_name_the_folder_and_the_command() -> None:
    with pytest.raises(ConfigError, match="is not in .*models--microsoft--kosmos-2-patch14-224 and could "
                                          "not be fetched; .*hf download microsoft/kosmos-2-patch14-224"):
        load(Kosmos, Kosmos.weights)
    made = config("kosmos", backbone_options={"weights": Kosmos.weights})
    with pytest.raises(ConfigError, match="hf download microsoft/kosmos-2-patch14-224"):
        Kosmos.tokenizer(made, [])


@pytest.mark.parametrize("damage", ["cut short", "a weight gone", "other sizes", "no words", "no names"])
def test_damaged_checkpoints_are_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights, settings = tmp_path / "model.safetensors", tmp_path / "config.json"
    match = "cannot be loaded as Kosmos2ForConditionalGeneration"
    if damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "a weight gone":
        tensors = load_file(weights)
        del tensors["image_to_text_projection.dense.weight"]
        save_file(tensors, weights, {"format": "pt"})
        match = "lacks .*image_to_text_projection.dense.weight"
    elif damage == "other sizes":
        changed = json.loads(settings.read_text())
        changed["text_config"]["ffn_dim"] = 96
        settings.write_text(json.dumps(changed))
    elif damage == "no words":
        settings.write_text("{")
        match = "expected a checkpoint of model_type 'kosmos-2'"
    else:
        settings.write_text("{}")
        match = "no config.json with a model_type"
    with pytest.raises(ConfigError, match=match):
        load(Kosmos, tmp_path)


@pytest.mark.parametrize(("options", "match"), [
    ({"wieghts": "x"}, "did you mean 'weights'"), ({"dtype": "float8"}, "dtype: got 'float8'"),
    ({"attention_implementation": "flash"}, "attention_implementation: got 'flash'")])
def test_mistakes_in_the_options_are_named(options: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config("kosmos", backbone_options=options)


def test_attention_that_is_not_there_is_refused(folder: Path) -> None:
    for weights in (folder, "random-tiny"):
        with pytest.raises(ConfigError, match="sdpa or eager|correct backbone_options"):
            load(Kosmos, weights, attention_implementation="flash_attention_2")


def test_images_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="image_size: got 224, expected 32, .*set model.image_size: 32"):
        load(Kosmos, folder, image_size=224)


def test_the_models_own_tokenizer_and_prompt(folder: Path) -> None:
    made = config("kosmos", backbone_options={"weights": str(folder)})
    tokenizer = Kosmos.tokenizer(made, ["words that do not matter"])
    ids, mask = tokenizer.encode("pick up the red block", 16)
    assert [VOCABULARY[index] for index in ids[mask]] == [
        "<s>", "<grounding>", "An", "image", "of", "a", "robot", "pick", "up", "the", "red", "block"]
    with pytest.raises(InstructionError, match="got 12 tokens in 'pick up .*', expected at most 11"):
        tokenizer.encode("pick up the red block", 11)
    with pytest.raises(InstructionError, match="'öffne the block' has parts .* not know: öffne;"):
        tokenizer.encode("öffne the block", 16)
    own = config("kosmos", backbone_options={"weights": str(folder), "prompt": "<s> {instruction}"})
    ids, mask = Kosmos.tokenizer(own, []).encode("pick up", 16)
    assert [VOCABULARY[index] for index in ids[mask]] == ["<s>", "pick", "up"]


def test_a_folder_without_a_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").unlink()
    made = config("kosmos", backbone_options={"weights": str(tmp_path)})
    with pytest.raises(ConfigError, match="expected a checkpoint of model_type 'kosmos-2' .*tokenizer.json"):
        Kosmos.tokenizer(made, [])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bundle_stands_alone(folder: Path, tmp_path: Path, dtype: str) -> None:
    """Trained from a checkpoint, it drives a robot after that is gone: same actions, same prompt."""
    source = shutil.copytree(folder, tmp_path / "source")
    made = bundle(backbone="kosmos", backbone_options={"weights": str(source), "dtype": dtype},
                  text_length=16)
    save_bundle(tmp_path / "policy", made)
    shutil.rmtree(source)
    loaded = load_bundle(tmp_path / "policy")
    policies = [Policy(made), Policy(loaded)]
    for policy in policies:
        policy.reset("pick up the red block")
    actions = [policy.step(observation(0)).values for policy in policies]
    assert np.array_equal(*actions)
    assert loaded.config.backbone_options["architecture"]["model_type"] == "kosmos-2"

"""State dicts laid out as RoboVLMs' in, bundles out, compared with a forward written after its formulae."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from policies import tabletop
from torch import Tensor, nn

from vla_policy import import_robovlms
from vla_policy.checkpoint import load_bundle
from vla_policy.errors import BundleError, ConfigError
from vla_policy.import_robovlms import FAMILIES, TheirConfig, import_checkpoint, read_checkpoint
from vla_policy.model.backbones.pretrained import CLIP_MEAN, CLIP_STD
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.strict import load_yaml

INSTRUCTION, PROMPT_WORDS = "open the drawer", "an image of a robot"
BATCH, WINDOW, CHUNK, SIDE, WIDTH, HIDDEN = 2, 3, 4, 32, 64, 16
THEIR_NAMES = {
    "kosmos": {"": "backbone."},
    "paligemma": {"model.vision_tower.": "backbone.vision_tower.vision_model.",
                  "model.multi_modal_projector.": "backbone.multi_modal_projector.",
                  "model.language_model.": "backbone.language_model.model.",
                  "lm_head.": "backbone.language_model.lm_head."},
}


def perceptron(out: int) -> nn.Module:
    part = nn.Module()
    part.mlp = nn.Sequential(nn.Linear(HIDDEN, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(),
                             nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, out))
    return part


class Reference(nn.Module):
    """Their model: names as in their checkpoints, but for the vision-language model, which is of today."""

    def __init__(self, vlm: nn.Module) -> None:
        super().__init__()
        self.vlm = vlm
        self.action_token = nn.Parameter(torch.randn(WIDTH))
        self.act_head = nn.Module()
        self.act_head.rnn = nn.LSTM(WIDTH, HIDDEN, 2, batch_first=True)
        self.act_head.actions, self.act_head.gripper = perceptron(6 * CHUNK), perceptron(CHUNK)

    def forward(self, static: Tensor, wrist: Tensor, ids: Tensor,
                tower: Callable[..., Tensor]) -> list[Tensor]:
        """Images (B, W, 3, S, S), ids with an end token (B, L) -> arm (B, W, K, 6), gripper (B, W, K)."""
        ids = ids.repeat_interleave(static.shape[1], 0)
        action = self.action_token.expand(len(ids), 1, -1)
        hidden = tower(self.vlm, static.flatten(0, 1), wrist.flatten(0, 1), ids, action)
        past, _ = self.act_head.rnn(hidden.unflatten(0, static.shape[:2]))
        arm = self.act_head.actions.mlp(past).tanh().unflatten(-1, (CHUNK, 6))
        return [arm, self.act_head.gripper.mlp(past)]

    def published(self, model: str) -> dict[str, Tensor]:
        """Their state dict."""
        named = {f"model.{name}": value for name, value in self.state_dict().items()
                 if not name.startswith("vlm.")}
        for name, value in self.vlm.state_dict().items():
            begin = next(begin for begin in THEIR_NAMES[model] if name.startswith(begin))
            named[f"model.{THEIR_NAMES[model][begin]}{name.removeprefix(begin)}"] = value
        return named


def kosmos_tower(vlm: nn.Module, static: Tensor, wrist: Tensor, ids: Tensor, action: Tensor) -> Tensor:
    def image(pixels: Tensor) -> Tensor:
        states = vlm.vision_model(pixel_values=pixels).last_hidden_state
        states = nn.functional.normalize(vlm.vision_model.model.post_layernorm(states), dim=-1)
        return vlm.image_to_text_projection(states)[0]

    words = vlm.text_model.model.embed_tokens(ids)
    row = torch.cat([words[:, :1], image(wrist), image(static), words[:, 1:-1], action, words[:, -1:]], 1)
    real = torch.ones(row.shape[:2])
    return vlm.text_model.model(inputs_embeds=row, attention_mask=real).last_hidden_state[:, -2]


def paligemma_tower(vlm: nn.Module, static: Tensor, wrist: Tensor, ids: Tensor, action: Tensor) -> Tensor:
    """Image tokens are divided by the root of the width; then the tower of that time multiplies all by it."""
    def image(pixels: Tensor) -> Tensor:
        states = vlm.model.vision_tower(pixels).last_hidden_state
        return vlm.model.multi_modal_projector(states) / WIDTH**0.5

    words = nn.functional.embedding(ids, vlm.model.language_model.embed_tokens.weight)
    row = torch.cat([words[:, :1], image(wrist), image(static), words[:, 1:-1], action, words[:, -1:]], 1)
    earlier = torch.full((row.shape[1],) * 2, float("-inf")).triu(1).expand(len(row), 1, -1, -1)
    row = row * WIDTH**0.5
    return vlm.model.language_model(inputs_embeds=row, attention_mask=earlier).last_hidden_state[:, -2]


TOWERS = {"kosmos": (kosmos_tower, CLIP_MEAN, CLIP_STD),
          "paligemma": (paligemma_tower, (0.5,) * 3, (0.5,) * 3)}


def make(folder: Path, model: str) -> tuple[Reference, TheirConfig]:
    """A reference with random weights; the folder of its vision-language model and their configuration."""
    torch.manual_seed(0)
    words = Tokenizer.build([f"{INSTRUCTION} {PROMPT_WORDS}"])
    words._core.add_special_tokens(["<s>", "<grounding>", "<eos>"])
    words.save(folder / "tokenizer.json")
    backbone = resolve(BACKBONES, FAMILIES[model].backbone, "backbone")
    hf_config = backbone.tiny_config(words.vocabulary_size + 4, SIDE)
    hf_config.save_pretrained(folder)
    theirs = {"model": model, "act_head": {"type": "LSTMDecoder", "hidden_size": HIDDEN, "num_layers": 2},
              "vlm": {"pretrained_model_name_or_path": str(folder)}, "window_size": WINDOW,
              "image_size": SIDE, "fwd_pred_next_n": CHUNK, "use_hand_rgb": True, "norm_action": True,
              "norm_min": -0.65, "norm_max": 0.65, "learning_rate": 2e-5}
    (folder / "theirs.json").write_text(json.dumps(theirs), encoding="utf-8")
    reference = Reference(backbone.hf_class(hf_config)).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return reference, load_yaml(TheirConfig, folder / "theirs.json", ConfigError)


Imported = tuple[Path, Reference, TheirConfig]


@pytest.fixture(scope="module")
def kosmos(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("kosmos")
    reference, theirs = make(folder, "kosmos")
    torch.save({"state_dict": reference.published("kosmos")}, folder / "policy.pt")
    return folder, reference, theirs


@torch.inference_mode()
@pytest.mark.parametrize("model", FAMILIES)
def test_an_imported_policy_acts_as_their_formulae_say(model: str, tmp_path: Path) -> None:
    reference, _ = make(tmp_path, model)
    torch.save({"state_dict": reference.published(model)}, tmp_path / "policy.pt")
    assert import_robovlms.main([str(tmp_path / "policy.pt"), "--config", str(tmp_path / "theirs.json"),
                                 "--robot", "tabletop", "--output", str(tmp_path / "out")]) == 0
    bundle = load_bundle(tmp_path / "out")
    ids, mask = (torch.from_numpy(part) for part in bundle.tokenizer.encode_batch([INSTRUCTION] * BATCH, 48))
    images = torch.randint(0, 256, (BATCH, WINDOW, 2, SIDE, SIDE, 3), dtype=torch.uint8)
    output = bundle.model(images, torch.zeros(BATCH, WINDOW, 0), ids, mask)
    tower, mean, std = TOWERS[model]
    pixels = ((images / 255 - torch.tensor(mean)) / torch.tensor(std)).movedim(-1, -3)
    ended = torch.cat([ids[:, : mask[0].sum()], torch.full((BATCH, 1), 5)], 1)
    arm, gripper = reference(pixels[:, :, 1], pixels[:, :, 0], ended, tower)
    assert bundle.config.cameras == ("wrist", "static")
    assert arm.std() > 1e-3
    torch.testing.assert_close(output.arm_BWKA, arm, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.gripper_BWK, gripper, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(bundle.action_normalizer.invert(np.ones(6)), [0.013] * 3 + [0.0325] * 3)


def test_what_does_not_fit_is_refused_by_name(kosmos: Imported, tmp_path: Path) -> None:
    folder, reference, theirs = kosmos
    table = reference.published("kosmos")
    table["model.vision_resampler.latents"] = torch.zeros(4)
    del table["model.act_head.rnn.bias_hh_l1"]
    table["model.action_token"] = torch.zeros(3)
    torch.save({"state_dict": table}, tmp_path / "other.pt")
    with pytest.raises(BundleError) as refusal:
        import_checkpoint(tmp_path / "other.pt", theirs, tabletop())
    for part in ("not known ['vision_resampler.latents']", "missing ['head.lstm.bias_hh_l1']",
                 "formulation.action_query (1, 1, 3) for (1, 1, 64)"):
        assert part in str(refusal.value)


def test_layouts_of_trainers(kosmos: Imported, tmp_path: Path) -> None:
    _, reference, _ = kosmos
    plain = {name.removeprefix("model."): value for name, value in reference.published("kosmos").items()}
    deepspeed = tmp_path / "checkpoint"
    deepspeed.mkdir()
    torch.save({"module": {f"_forward_module.model.{name}": value for name, value in plain.items()},
                "ds_version": "0.14"}, deepspeed / "mp_rank_00_model_states.pt")
    torch.save({"model_state_dict": {f"module.{name}": value for name, value in plain.items()}},
               tmp_path / "old.pt")
    for path in (tmp_path, deepspeed, tmp_path / "old.pt"):
        assert read_checkpoint(path).keys() == plain.keys()


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_files_that_are_not_read(tmp_path: Path) -> None:
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(BundleError, match="nothing in it was executed"):
        read_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(BundleError, match=r"holds \['epoch'\], expected the weights under one of state_dict"):
        read_checkpoint(tmp_path / "none.pt")
    torch.save({"module": {"model.action_token": torch.zeros(0)}}, tmp_path / "spread.pt")
    with pytest.raises(BundleError, match="ZeRO stage 3"):
        read_checkpoint(tmp_path / "spread.pt")
    with pytest.raises(BundleError, match="expected a file, or a DeepSpeed folder"):
        read_checkpoint(tmp_path / "missing.pt")


@pytest.mark.parametrize(("change", "message"), [
    ({"act_head": {"type": "GPTDecoder"}}, "act_head.type: got 'GPTDecoder', expected 'LSTMDecoder'"),
    ({"model": "qwen"}, "model: got 'qwen', expected 'kosmos' or 'paligemma'"),
    ({"act_head": {"type": "LSTMDecoder", "history_type": "pre"}}, "act_head.history_type: got 'pre'"),
    ({"use_vision_resampler": True}, "use_vision_resampler"),
])
def test_other_models_of_theirs_are_refused(kosmos: Imported, tmp_path: Path, change: dict[str, object],
                                            message: str) -> None:
    theirs = json.loads((kosmos[0] / "theirs.json").read_text(encoding="utf-8")) | change
    (tmp_path / "theirs.json").write_text(json.dumps(theirs), encoding="utf-8")
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load_yaml(TheirConfig, tmp_path / "theirs.json", ConfigError)


def test_a_folder_of_another_model_is_refused(kosmos: Imported, tmp_path: Path) -> None:
    folder, _, theirs = kosmos
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(ConfigError, match="holds a model of model_type 'llama', expected 'kosmos-2'"):
        import_checkpoint(folder / "policy.pt", theirs, tabletop(), str(tmp_path))

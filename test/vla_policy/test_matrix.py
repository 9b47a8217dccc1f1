"""Every allowed cell of backbone x formulation x action space x head in; out: it trains, is saved, loads and streams.

The run ends with a table of all cells. test/ros/test_backbones_drive.py lets every backbone drive through the nodes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from policies import SENTENCES, tabletop

from sim_bridges.tabletop import TASKS
from vla_policy.checkpoint import Bundle, load_bundle, save_bundle
from vla_policy.engine import Engine
from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile
from vla_policy.model.heads.losses import ActionTargets, LossWeights
from vla_policy.model.registry import BACKBONES, FORMULATIONS, HEADS, resolve
from vla_policy.model.vla import VLAModel, build_model
from vla_policy.normalizer import Normalizer
from vla_policy.observation.proprioception import proprioception_names
from vla_policy.strict import parse

EPISODE_TASK = "lift_red_block"
FRAMES, WINDOW, SIDE, LENGTH, CHUNK = 3, 2, 32, 8, 2
LEARNING_RATE = 1e-4  # so small that both steps go downhill, whatever the cell
TOLERANCE = {"atol": 2e-4, "rtol": 1e-3}  # normalised actions and logits: another order of sums, nothing more
SMALL = {"fc": {"decoder_size": 16}, "lstm": {"hidden_size": 16, "decoder_size": 16},
         "gpt": {"width": 16, "heads": 2, "layers": 1, "decoder_size": 16}, "discrete": {},
         "diffusion": {"width": 16, "heads": 2, "layers": 1, "denoiser_size": 32, "steps": 3},
         "flow": {"width": 16, "heads": 2, "layers": 1, "denoiser_size": 32, "steps": 3}}
SMALL_TINY = {"width": 32, "visual_width": 16, "layers": 1, "heads": 4}


@dataclass(frozen=True)
class Cell:
    """One combination."""

    backbone: str
    formulation: str
    head: str
    decoding: str = ""

    def __str__(self) -> str:
        return "-".join(part for part in (self.backbone, self.formulation, self.head, self.decoding) if part)

    def file(self) -> ModelFile:
        """A model file for a twin. Raises: ConfigError where the parts do not combine."""
        options = {"weights": "random-tiny"} if "weights" in twin_options(self.backbone) else SMALL_TINY
        model: dict[str, Any] = {
            "backbone": self.backbone, "formulation": self.formulation, "action_head": self.head,
            "history_length": 1 if self.formulation == "one_step" else WINDOW, "action_chunk_size": CHUNK,
            "execute_rows": CHUNK, "image_size": SIDE, "text_length": LENGTH, "backbone_options": options,
            "proprioception_joints": ["finger_joint"],
            "head_options": SMALL[self.head] | ({"decoding": self.decoding} if self.decoding else {})}
        return parse(ModelFile, {"model": model}, str(self), ConfigError)


def twin_options(backbone: str) -> Any:
    return resolve(BACKBONES, backbone, "backbone").Options.model_fields


def allowed(backbone: str) -> list[Cell]:
    """The cells that the configuration takes."""
    cells = []
    for formulation in FORMULATIONS:
        for head in HEADS:
            for decoding in ("parallel", "autoregressive") if head == "discrete" else ("",):
                cell = Cell(backbone, formulation, head, decoding)
                try:
                    cell.file()
                except ConfigError:
                    continue
                cells.append(cell)
    return cells


def bundle_of(file: ModelFile) -> Bundle:
    """A twin with fresh weights in an otherwise whole bundle."""
    contract = tabletop()
    sentences = [phrase.format(colour="red") for phrase in TASKS[EPISODE_TASK].phrases]
    backbone = resolve(BACKBONES, file.model.backbone, "backbone")
    tokenizer = backbone.tokenizer(file.model, [*SENTENCES, *sentences])
    torch.manual_seed(0)
    model = build_model(file.model, contract, tokenizer.vocabulary_size).eval()
    rng = np.random.default_rng(0)
    names = proprioception_names(contract, file.model.proprioception_joints)
    return Bundle(model=model, file=file, contract=contract, tokenizer=tokenizer,
                  state_normalizer=Normalizer.fit(rng.normal(size=(50, len(names))), names),
                  action_normalizer=Normalizer.fit(rng.normal(0, 0.002, (50, 6)), contract.action_names[:6]))


@cache
def frames() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1, FRAMES, 2, S, S, 3) and states (1, FRAMES, P), the same for every cell."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1, FRAMES, 2, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    return images, torch.randn(1, FRAMES, 10, generator=generator).clamp(-1, 1)


def train_two_steps(model: VLAModel, text: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    """The loss before and after two steps on one batch; noise of a loss is the same each time."""
    window = model.config.history_length
    images, state = (part[:, :window] for part in frames())
    generator = torch.Generator().manual_seed(2)
    arm = torch.rand(1, window, CHUNK, 6, generator=generator) * 2 - 1
    targets = ActionTargets(arm, torch.ones(1, window, CHUNK), torch.ones(1, window, CHUNK, dtype=torch.bool))
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    losses = []
    for _ in range(3):
        torch.manual_seed(3)
        parts = model.loss(images, state, *text, targets, LossWeights())
        loss = LossWeights().total(parts)
        assert all(torch.isfinite(part.mean) for part in parts.values())
        losses.append(loss.item())
        optimizer.zero_grad()
        if len(losses) < 3:
            loss.backward()
            optimizer.step()
    return losses[0], losses[-1]


@torch.inference_mode()
def check_streaming(model: VLAModel, loaded: VLAModel, text: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The loaded model, frame by frame and without text padding, says what the saved one says of whole
    windows.
    """
    images, state = frames()
    engine = Engine(loaded)
    session = engine.session()
    engine.begin(session, text[0][0].numpy(), text[1][0].numpy())
    window = model.config.history_length
    for newest in range(FRAMES):
        actions = engine.step([session], [list(images[0, newest].numpy())], [state[0, newest].numpy()])
        seen = slice(max(0, newest - window + 1), newest + 1)
        at_once = model(images[:, seen], state[:, seen], *text)
        np.testing.assert_allclose(actions.arm[0], at_once.arm_BWKA[0, -1], **TOLERANCE)
        np.testing.assert_allclose(actions.gripper[0], at_once.gripper_BWK[0, -1], **TOLERANCE)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Lines to show when all cells are done."""
    lines: list[str] = []
    yield lines
    plugins = request.config.pluginmanager
    with plugins.get_plugin("capturemanager").global_and_fixture_disabled():
        plugins.get_plugin("terminalreporter").write_line("\n" + "\n".join(lines))


@pytest.mark.parametrize("cell", [cell for backbone in BACKBONES for cell in allowed(backbone)], ids=str)
def test_a_cell_trains_is_saved_loads_and_streams(cell: Cell, tmp_path: Path, table: list[str]) -> None:
    started = time.perf_counter()
    bundle = bundle_of(cell.file())
    ids, mask = bundle.tokenizer.encode_batch([SENTENCES[0]], LENGTH)
    text = torch.from_numpy(ids), torch.from_numpy(mask)
    before, after = train_two_steps(bundle.model, text)
    assert after < before
    save_bundle(tmp_path / "bundle", bundle)
    check_streaming(bundle.model, load_bundle(tmp_path / "bundle").model, text)
    parameters = sum(weight.numel() for weight in bundle.model.parameters())
    table.append(f"{cell.backbone:17}{cell.formulation:12}{bundle.config.action_space:11}{cell.head:10}"
                 f"{cell.decoding:15}loss {before:.3f} -> {after:.3f}  {parameters / 1e6:.2f} M  "
                 f"{time.perf_counter() - started:.1f} s")

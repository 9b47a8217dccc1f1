"""Generated scenes in, grounded weights out: the small VLM learns to point at what a sentence names.

It does so before it learns to act, as large VLMs know pictures and words before they become policies.
`ros2 run vla_training pretrain config/training/tabletop.yaml --scenes SCENES --output OUTPUT --minutes 9`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_model, save_model
from torch import nn

from vla_policy.checkpoint import load_bundle
from vla_policy.contract import RobotContract, load_contract, parse_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.model.config import ModelFile, load_model_file
from vla_policy.model.heads.losses import place_loss
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel, build_model
from vla_policy.normalizer import Normalizer
from vla_policy.provenance import provenance
from vla_policy.resources import find_contract
from vla_training.console import refuse
from vla_training.datasets.statistics import fit_state
from vla_training.tabletop.grounding import PlaceScale, Scenes, load_scenes, scene_batch
from vla_training.training.optimization import AveragedWeights, autocast, learning_rate_at, make_optimizer
from vla_training.training.same_model import check_same_model
from vla_training.training.vocabulary import learn_words

HELD_OUT_SCENES = 256
REPORT_EVERY = 200


@dataclass(frozen=True, slots=True)
class Grounded:
    """A model that points, and what its inputs were encoded with."""

    model: VLAModel
    file: ModelFile
    contract: RobotContract
    tokenizer: Tokenizer
    state_normalizer: Normalizer | None  # also None where it is to be fitted to the scenes


@dataclass(frozen=True, slots=True)
class PretrainOptions:
    """minutes, steps: the budget, whichever is used up first. batch_size: scenes a step. seed: of weights and
    order.
    """

    minutes: float = 8.0
    steps: int = 100_000
    batch_size: int = 96
    learning_rate: float = 1e-3
    precision: str = "bf16"
    seed: int = 0


def pretrain(
    file: ModelFile,
    contract: RobotContract,
    scenes: Scenes,
    options: PretrainOptions,
    console: Console,
    start: Grounded | None = None,
) -> tuple[Grounded, dict[str, float]]:
    """Train the model to point, from `start`'s weights where given. Returns it with its held-out median and
    mean error [m].
    """
    torch.manual_seed(options.seed)
    backbone = resolve(BACKBONES, file.model.backbone, "backbone")
    if start:
        check_same_model(start.file, file, "start")
        tokenizer = learn_words(start.model, start.tokenizer, scenes.sentences)
    else:
        tokenizer = backbone.tokenizer(file.model, scenes.sentences)
    normalizer = start.state_normalizer if start else None
    normalizer = normalizer or fit_state([scenes.state], contract, file.model)
    scale = PlaceScale.of(contract)
    scenes = scenes.for_model(normalizer, tokenizer, file.model.text_length, scale)
    held_out = min(HELD_OUT_SCENES, len(scenes) // 5)
    train_scenes, test_scenes = scenes.part(slice(held_out, None)), scenes.part(slice(0, held_out))
    model = start.model if start else build_model(file.model, contract, tokenizer.vocabulary_size)
    average = AveragedWeights(model, 0.998)
    _train(model, average, train_scenes, options, console)
    average.adopt(model)
    error_m = pointing_error_m(model, test_scenes, scale)
    report = {"median_error_m": float(np.median(error_m)), "mean_error_m": float(error_m.mean())}
    console.log(
        f"held-out scenes: median error {report['median_error_m'] * 1e3:.1f} mm, "
        f"mean {report['mean_error_m'] * 1e3:.1f} mm"
    )
    return Grounded(model, file, contract, tokenizer, normalizer), report


def _train(
    model: VLAModel, average: AveragedWeights, scenes: Scenes, options: PretrainOptions, console: Console
) -> None:
    optimizer = make_optimizer(model, options.learning_rate, 1e-4)
    started, step, losses = time.monotonic(), 0, []
    columns = (
        TextColumn("pre-training"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=1) as progress:
        bar = progress.add_task("", total=1.0, loss="")
        while (share := _share_done(started, step, options)) < 1.0:
            losses.append(
                _step(
                    model,
                    optimizer,
                    scenes,
                    options,
                    step,
                    learning_rate_at(max(share, 1e-3), options.learning_rate, 0.03, 0.05),
                )
            )
            average.update(model)
            step += 1
            progress.update(bar, completed=share, loss=f"step {step}  loss {np.mean(losses[-50:]):.5f}")
            if step % REPORT_EVERY == 0:
                console.log(f"step {step}: loss {np.mean(losses[-REPORT_EVERY:]):.5f}", highlight=False)


def _share_done(started: float, step: int, options: PretrainOptions) -> float:
    return max((time.monotonic() - started) / 60.0 / options.minutes, step / options.steps)


def _step(
    model: VLAModel,
    optimizer: torch.optim.Optimizer,
    scenes: Scenes,
    options: PretrainOptions,
    step: int,
    rate: float,
) -> float:
    batch = scene_batch(scenes, options.batch_size, np.random.default_rng([options.seed, step]))
    with autocast(torch.device("cpu"), options.precision):
        guess = model.ground(*map(torch.from_numpy, batch.inputs))
    loss = place_loss(guess, torch.from_numpy(batch.place), torch.ones(len(guess), dtype=torch.bool)).mean
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def pointing_error_m(model: VLAModel, scenes: Scenes, scale: PlaceScale) -> np.ndarray:
    """Distance [m] between guessed and true place, one sentence a scene."""
    model.eval()
    batch = scene_batch(scenes, min(len(scenes), HELD_OUT_SCENES), np.random.default_rng(0))
    guess = model.ground(*map(torch.from_numpy, batch.inputs)).float().numpy()
    model.train()
    return np.linalg.norm((guess - batch.place) * scale.unit_m, axis=1)


def save_grounding(folder: Path, grounded: Grounded, facts: dict[str, Any]) -> None:
    """Write weights, tokenizer, state normaliser and configs; `facts` (errors, provenance) stand beside them
    for the reader.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_model(grounded.model, str(folder / "model.safetensors"))
    grounded.tokenizer.save(folder / "tokenizer.json")
    if grounded.state_normalizer is not None:
        grounded.state_normalizer.save(folder / "state_normalizer.json")
    described = {
        "model": grounded.file.model.model_dump(mode="json"),
        "contract": grounded.contract.model_dump(mode="json"),
    }
    (folder / "grounding.json").write_text(json.dumps(described | facts, indent=2), encoding="utf-8")


def load_grounding(folder: Path | str) -> Grounded:
    """Read what `save_grounding` wrote. Raises: ConfigError for a folder that holds no grounding."""
    folder = Path(folder)
    if not (folder / "grounding.json").is_file():
        raise ConfigError(f"{folder}: no grounding.json in it; make it with `ros2 run vla_training pretrain`")
    facts = json.loads((folder / "grounding.json").read_text(encoding="utf-8"))
    file = ModelFile.model_validate({"model": facts["model"]})
    contract = parse_contract(facts["contract"], str(folder / "grounding.json"))
    prompt = resolve(BACKBONES, file.model.backbone, "backbone").prompt(file.model)
    tokenizer = Tokenizer.load(folder / "tokenizer.json", prompt)
    model = build_model(file.model, contract, tokenizer.vocabulary_size)
    load_model(model, folder / "model.safetensors")
    normalizer = Normalizer.load(folder / "state_normalizer.json") if file.model.proprioception else None
    return Grounded(model, file, contract, tokenizer, normalizer)


def load_start(folder: Path | str) -> Grounded:
    """An earlier grounding, or a policy bundle: its weights and words, to be fitted to states anew."""
    if not (Path(folder) / "manifest.json").is_file():
        return load_grounding(folder)
    bundle = load_bundle(folder)
    return Grounded(bundle.model, bundle.file, bundle.contract, bundle.tokenizer, None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="pretrain", description=__doc__)
    parser.add_argument("config", type=Path, help="config/training/*.yaml, for its model")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--scenes", type=Path, required=True, help="folder made by `scenes`")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="an earlier grounding, or a policy bundle, to go on from")
    parser.add_argument("--minutes", type=float, default=8.0, help="budget")
    parser.add_argument("--steps", type=int, default=100_000, help="budget, where it is used up first")
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    console = Console()
    torch.set_num_threads(options.threads)
    try:
        grounded, report = pretrain(
            load_model_file(options.config),
            load_contract(find_contract(options.robot)),
            load_scenes(options.scenes),
            PretrainOptions(
                minutes=options.minutes,
                steps=options.steps,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                precision=options.precision,
                seed=options.seed,
            ),
            console,
            load_start(options.start) if options.start else None,
        )
        save_grounding(
            options.output, grounded, {"report": report, "provenance": provenance("pretrain", arguments)}
        )
    except VlaError as problem:
        refuse(console, problem)
        return 1
    console.log(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

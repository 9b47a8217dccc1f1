"""A backbone and a way to adapt it in; windows a second and peak GPU memory of fine-tuning out, measured here.

    python -m vla_training.bench_finetune --backbone NAME --mode full lora

Weights are random at the published size and the batch is made up, since neither speed nor memory depends on the
values: nothing is downloaded, no data is read. Needs an NVIDIA GPU. `--twin` runs the backbone's tiny twin on the CPU
instead, to see that all works; its figures say nothing of the model. `--suggest GIB` needs no GPU: it counts what of
the backbone can be trained on one with this much memory, and prints the `adapt` part of a training file for it.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.losses import ActionTargets, LossWeights
from vla_policy.model.published import model_sizes
from vla_policy.model.vla import VLAModel, build_model
from vla_policy.models import short
from vla_policy.resources import find_contract
from vla_policy.strict import parse
from vla_training.adapt import AdaptConfig, LoraSettings, prepare_model, suggest
from vla_training.console import refuse
from vla_training.training.optimization import make_optimizer

MODES = {
    "full": AdaptConfig(),
    "freeze-vision": AdaptConfig(freeze=("vision",)),
    "lora": AdaptConfig(lora=LoraSettings(rank=32, targets=("text", "vision"))),
    "qlora": AdaptConfig(lora=LoraSettings(rank=32, targets=("text", "vision"), four_bit=True)),
}
CHUNK, WORDS, VOCABULARY = 10, 16, 64


@dataclass(frozen=True, slots=True)
class Measured:
    """windows_per_s: of optimizer steps. peak_gib: GPU memory at its highest, all included; None on a CPU."""

    mode: str
    weights: int
    trained: int
    windows_per_s: float
    peak_gib: float | None


def model_config(backbone: str, window: int, twin: bool) -> ModelConfig:
    """The policy to measure: the one RoboVLMs found best, around `backbone` at its published size or its twin.

    Raises: ConfigError for an unknown backbone, and for one whose published size is not known here.
    """
    model: dict[str, Any] = {"backbone": backbone, "formulation": "policy_head", "action_head": "lstm",
                             "history_length": window, "action_chunk_size": CHUNK, "proprioception": False}
    if twin:
        model["text_length"] = WORDS
    return parse(ModelConfig, model | model_sizes(backbone, "twin" if twin else "published"), "model", ConfigError)


def batch_of(model: VLAModel, windows: int, device: torch.device) -> tuple[tuple[Tensor, ...], ActionTargets]:
    """Inputs of `VLAModel.loss`, made up: whole windows, whole sentences."""
    config = model.config
    shape = (windows, config.history_length)
    side = config.image_size
    images = torch.randint(0, 256, (*shape, len(config.cameras), side, side, 3), dtype=torch.uint8, device=device)
    text = torch.randint(3, VOCABULARY, (windows, config.text_length), device=device)
    inputs = (images, torch.zeros(*shape, 0, device=device), text, torch.ones_like(text, dtype=torch.bool))
    rows = (*shape, config.action_chunk_size)
    return inputs, ActionTargets(torch.rand(*rows, 6, device=device) * 2 - 1, torch.ones(rows, device=device),
                                 torch.ones(rows, dtype=torch.bool, device=device))


def measure(mode: str, options: argparse.Namespace, device: torch.device) -> Measured:
    """Train for `warmup` and then `steps` steps, and time the latter. Raises: ConfigError as `prepare_model`."""
    gc.collect()  # the model measured before this one: its layers refer to each other in circles
    torch.manual_seed(0)
    config = model_config(options.backbone, options.window, options.twin)
    with device:
        model = build_model(config, load_contract(find_contract("tabletop")), VOCABULARY)
    adapt = MODES[mode].model_copy(update={"activation_checkpointing": options.activation_checkpointing})
    model = prepare_model(model, adapt).to(device).train()
    optimizer = make_optimizer(model, learning_rate=2e-5, weight_decay=0.0)
    batch = batch_of(model, options.batch_size, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(options.warmup):
        _step(model, optimizer, *batch)
    began = _now(device)
    for _ in range(options.steps):
        _step(model, optimizer, *batch)
    seconds = _now(device) - began
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    weights = list(model.parameters())
    return Measured(mode, sum(w.numel() for w in weights), sum(w.numel() for w in weights if w.requires_grad),
                    options.batch_size * options.steps / seconds, peak)


def suggestion(options: argparse.Namespace) -> str:
    """The `adapt` part of a training file, as YAML. Raises: ConfigError where not even adapters fit."""
    with torch.device("meta"):  # sizes without memory
        model = build_model(model_config(options.backbone, options.window, options.twin),
                            load_contract(find_contract("tabletop")), VOCABULARY)
    chosen = suggest(model, options.suggest).model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump({"adapt": chosen}, sort_keys=False).strip()


def _step(model: VLAModel, optimizer: torch.optim.Optimizer, inputs: tuple[Tensor, ...],
          targets: ActionTargets) -> None:
    weights = LossWeights()
    with torch.autocast(inputs[0].device.type, torch.bfloat16):
        loss = weights.total(model.loss(*inputs, targets, weights))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m vla_training.bench_finetune", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="a name of `python -m vla_policy.models`")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=["full", "lora"], help="what is trained")
    parser.add_argument("--batch-size", type=int, default=4, help="windows of a step")
    parser.add_argument("--window", type=int, default=8, help="frames of a window, of two cameras")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--activation-checkpointing", action="store_true", help="compute activations again")
    parser.add_argument("--suggest", type=float, metavar="GIB", help="measure nothing: what fits a GPU of this memory")
    parser.add_argument("--twin", action="store_true", help="the tiny twin, on the CPU")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        if options.suggest is not None:
            console.print(suggestion(options), markup=False, highlight=False)
            return 0
        device = torch.device("cpu" if options.twin else _gpu())
        table = Table("mode", "weights", "trained", "windows/s", "frames/s", "peak GPU memory",
                      title=_title(options, device))
        for mode in options.mode:
            result = measure(mode, options, device)
            memory = "-" if result.peak_gib is None else f"{result.peak_gib:.1f} GiB"
            table.add_row(mode, short(result.weights), short(result.trained), f"{result.windows_per_s:.2f}",
                          f"{result.windows_per_s * options.window:.1f}", memory)
    except VlaError as problem:
        refuse(console, problem)
        return 1
    console.print(table)
    return 0


def _gpu() -> str:
    """Raises: ConfigError where there is none."""
    if not torch.cuda.is_available():
        raise ConfigError("bench_finetune: torch sees no NVIDIA GPU here; run it on a machine with one and a CUDA "
                          "build of torch, or add --twin to try the command with a tiny model on the CPU")
    return "cuda"


def _title(options: argparse.Namespace, device: torch.device) -> str:
    place = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, a tiny twin: no figures of the model"
    again = ", activations computed again" if options.activation_checkpointing else ""
    return (f"{options.backbone}, {options.batch_size} windows of {options.window} frames x 2 cameras, "
            f"bf16 arithmetic{again}; {place}")


if __name__ == "__main__":
    sys.exit(main())

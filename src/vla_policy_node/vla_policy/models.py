"""Nothing in; out: every backbone, formulation and head, what combines, and how large the models are.

    python -m vla_policy.models                        all backbones, and what combines with what
    python -m vla_policy.models --backbone NAME        every cell of one, with the reason where it is refused
    python -m vla_policy.models --bundle FOLDER        the parts of a trained policy, counted

Models are built on torch's meta device: sizes are counted, no weight is loaded. The size of a published
checkpoint is that of its configuration, read from the Hugging Face cache or hub, or from the adapter where
that knows it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from torch import nn

from vla_policy.checkpoint import load_bundle
from vla_policy.errors import ConfigError, VlaError
from vla_policy.model.config import ModelConfig
from vla_policy.model.published import published_architecture
from vla_policy.model.registry import BACKBONES, FORMULATIONS, HEADS, resolve
from vla_policy.strict import parse

BYTES_BF16 = 2


def main() -> None:
    """Entry point; exit code 1 with one sentence for what is not known."""
    parser = argparse.ArgumentParser(prog="python -m vla_policy.models",
                                     description="Backbones, formulations, heads: what combines, how large.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--backbone", help="show every cell of this backbone")
    choice.add_argument("--bundle", help="count the parts of the policy in this folder")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    console = Console()
    try:
        if arguments.bundle:
            console.print(bundle_table(arguments.bundle))
        elif arguments.backbone:
            console.print(cell_table(arguments.backbone))
        else:
            console.print(backbone_table())
            console.print(combination_table())
    except VlaError as problem:
        console.print(str(problem), style="red", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


def backbone_table() -> Table:
    """A row per backbone."""
    table = Table(Column("backbone", no_wrap=True), Column("published weights", overflow="fold"), "px", "size",
                  "in bf16", Column("interleaved", no_wrap=True), "causal", title="Backbones", box=SIMPLE,
                  pad_edge=False, caption="-: its configuration is neither in the cache nor reachable")
    for name in BACKBONES:
        backbone = resolve(BACKBONES, name, "backbone")
        count = published_parameters(name)
        size = ("-", "-") if count is None else (short(count), f"{count * BYTES_BF16 / 2**30:.2f} GiB")
        table.add_row(name, getattr(backbone, "weights", "from scratch"), str(backbone.image_size), *size,
                      "yes" if backbone.interleaves else "no", "yes" if backbone.causal else "no")
    return table


def combination_table() -> Table:
    """Which head goes with which formulation, for a backbone that can do all."""
    able = next(name for name in BACKBONES if all(getattr(resolve(BACKBONES, name, "backbone"), what)
                                                  for what in ("interleaves", "causal")))
    table = Table("head", "action space", *FORMULATIONS, title="What combines")
    refusals = {(formulation, head): refusal for formulation, head, refusal in cells(able)}
    for head in HEADS:
        marks = ["no" if refusals[formulation, head] else "yes" for formulation in FORMULATIONS]
        table.add_row(head, resolve(HEADS, head, "action_head").action_space, *marks)
    return table


def cell_table(backbone: str) -> Table:
    """Every formulation and head with one backbone. Raises: ConfigError for an unknown one."""
    resolve(BACKBONES, backbone, "backbone")
    table = Table("formulation", "head", "combines, or why not", title=backbone, show_lines=False)
    for formulation, head, refusal in cells(backbone):
        table.add_row(formulation, head, refusal or "yes")
    return table


def bundle_table(folder: str) -> Table:
    """The parts of a trained policy. Raises: BundleError."""
    bundle = load_bundle(folder)
    table = Table("part", "which", "parameters", title=folder)
    names = {"backbone": bundle.config.backbone, "formulation": bundle.config.formulation,
             "head": bundle.config.action_head}
    for part, module in bundle.model.named_children():
        table.add_row(part, names.get(part, ""), short(parameters(module)))
    table.add_row("all", "", short(parameters(bundle.model)))
    return table


def cells(backbone: str) -> Iterator[tuple[str, str, str]]:
    """Formulation, head and the refusal, empty where they combine, for windows of more than one frame."""
    for formulation in FORMULATIONS:
        for head in HEADS:
            data = {"backbone": backbone, "formulation": formulation, "action_head": head}
            try:
                parse(ModelConfig, data, "model", ConfigError)
                yield formulation, head, ""
            except ConfigError as problem:
                yield formulation, head, str(problem).removeprefix("model: ")


def published_parameters(name: str) -> int | None:
    """How many numbers the model has whose weights a backbone loads by default; None where that is not known
    here.
    """
    backbone = resolve(BACKBONES, name, "backbone")
    config = ModelConfig(backbone=name)
    if hasattr(backbone, "hf_class"):
        architecture = published_architecture(backbone)
        if architecture is None:
            return None
        # From here on only sizes count, so the image side may be whatever the architecture says.
        with torch.device("meta"):
            return parameters(backbone.hf_class._from_config(architecture))
    with torch.device("meta"):
        return parameters(backbone.create(config, vocabulary_size=0))


def parameters(module: nn.Module) -> int:
    """Numbers that training can change, shared ones once."""
    return sum(weight.numel() for weight in module.parameters())


def short(count: int) -> str:
    """1234567890 -> 1.23 B."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"


if __name__ == "__main__":
    main()

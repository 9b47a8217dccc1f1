"""A checkpoint of RoboVLMs in, a bundle out that acts as the checkpoint did.

    python -m vla_policy.import_robovlms CHECKPOINT --config THEIR.json --robot CONTRACT.yaml --output BUNDLE

CHECKPOINT is a .pt or .ckpt file, or the folder that DeepSpeed writes. THEIR.json is the configuration
beside it. Covered are continuous LSTM policy heads over Kosmos-2 and PaliGemma; anything else is refused by
name. Nothing in a checkpoint is executed. Source: https://github.com/Robot-VLAs/RoboVLMs.

What its code does is kept: PaliGemma runs causally, the sentence's first token stands before the images, the
wrist image before the static one, and the sentence's last token, which stands behind ACT, is left out.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from rich.console import Console
from torch import Tensor

from vla_policy.checkpoint import Bundle, save_bundle
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import BundleError, ConfigError, ContractError, VlaError
from vla_policy.model.backbones.pretrained import PretrainedBackbone
from vla_policy.model.config import ModelConfig, ModelFile
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.vla import VLAModel, build_model
from vla_policy.normalizer import Normalizer
from vla_policy.resources import find_contract
from vla_policy.strict import StrictModel, load_yaml, parse

ARM_SIZE = 6
# Contract units that one unit of a dataset's action stands for: CALVIN's relative actions [m, rad].
CALVIN_UNITS = (0.02, 0.02, 0.02, 0.05, 0.05, 0.05)
WRAPPERS = ("_forward_module.", "module.", "model.")  # what trainers put before every name, outermost first
TABLES = ("state_dict", "model_state_dict", "module")  # where a file keeps the weights
DEEPSPEED_FILES = ("checkpoint/mp_rank_00_model_states.pt", "mp_rank_00_model_states.pt")
# Written by some versions of transformers, computed by all: no weights.
COMPUTED = ("position_ids", "rotary_emb.inv_freq", "embed_positions.weights")
# Ours alone: a prediction beside the actions, which they do not train.
UNTRAINED = ("grounding.weight", "grounding.bias")

HEAD_KEYS = {
    "action_token": "formulation.action_query",
    "act_head.rnn.": "head.lstm.",
    "act_head.actions.mlp.": "head.decoder.arm.",
    "act_head.gripper.mlp.": "head.decoder.gripper.",
}


@dataclass(frozen=True, slots=True)
class Family:
    """How one of their models maps to ours.

    backbone: our name. keys: beginning of their names -> of ours; the first that fits counts. scales_rows:
    their text tower multiplies all it gets by the root of its width, ours words alone.
    """

    backbone: str
    keys: Mapping[str, str]
    scales_rows: bool = False


FAMILIES = {  # by the `model` of their configuration
    "kosmos": Family("kosmos", HEAD_KEYS | {"backbone.": "backbone.vlm."}),
    "paligemma": Family("paligemma-causal", HEAD_KEYS | {
        "backbone.vision_tower.vision_model.": "backbone.vlm.model.vision_tower.",
        "backbone.multi_modal_projector.": "backbone.vlm.model.multi_modal_projector.",
        "backbone.language_model.model.": "backbone.vlm.model.language_model.",
        "backbone.language_model.lm_head.": "backbone.vlm.lm_head.",
    }, scales_rows=True),
}


class _Theirs(StrictModel):
    """Part of their configuration: keys that do not change what a trained model computes are passed over."""

    model_config = ConfigDict(extra="ignore")


class TheirHead(_Theirs):
    """`act_head`; the values are the only ones that the converter knows."""

    type: Literal["LSTMDecoder"]
    hidden_size: int = 1024
    num_layers: int = 4
    action_dim: Literal[7] = 7
    down_sample: Literal["none"] = "none"
    latent: Literal[1] = 1
    action_space: Literal["continuous"] = "continuous"
    history_type: Literal["post"] = "post"


class TheirVlm(_Theirs):
    """`vlm`."""

    pretrained_model_name_or_path: str


class TheirConfig(_Theirs):
    """Their configuration, as far as it says what the model is and how actions are scaled."""

    model: Literal["kosmos", "paligemma"]
    act_head: TheirHead
    vlm: TheirVlm
    window_size: Annotated[int, Field(ge=1)]
    fwd_pred_next_n: Annotated[int, Field(ge=1)]
    image_size: Annotated[int, Field(ge=1)] = 224
    use_hand_rgb: bool = False
    use_state: Literal[False] = False
    use_vision_resampler: Literal[False] = False
    norm_action: bool = False
    norm_min: float = -1.0
    norm_max: float = 1.0


def import_checkpoint(checkpoint: Path | str, theirs: TheirConfig, contract: RobotContract,
                      vlm: str | None = None, arm_units: Sequence[float] = CALVIN_UNITS,
                      cameras: tuple[str, str] = ("static", "wrist")) -> Bundle:
    """The policy in `checkpoint`.

    vlm: folder or hub name with config.json and tokenizer.json of its vision-language model; by default
    what their configuration names. arm_units: contract units per unit of the actions that they normalised.
    cameras: names of the static and the wrist camera in the contract.

    Raises: BundleError, ConfigError or ContractError naming what does not fit.
    """
    _check_contract(contract, arm_units)
    family = FAMILIES[theirs.model]
    backbone: type[PretrainedBackbone] = resolve(BACKBONES, family.backbone, "backbone")
    source = vlm or theirs.vlm.pretrained_model_name_or_path
    config = _model_config(theirs, family, cameras, {"weights": source})
    tokenizer = backbone.tokenizer(config, ())
    architecture = {"weights": source, "architecture": backbone.architecture(source)}
    config = _model_config(theirs, family, cameras, architecture)
    model = build_model(config, contract, tokenizer.vocabulary_size)
    load_theirs(model, read_checkpoint(checkpoint), family, str(checkpoint))
    return Bundle(model.eval(), ModelFile(model=config), contract, None,
                  _normalizer(theirs, contract.action_names[:ARM_SIZE], arm_units), tokenizer,
                  {"imported_from": f"RoboVLMs, {Path(checkpoint).name}"})


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Names (without what trainers put before them) and weights. Raises: BundleError."""
    file = _weights_file(Path(path))
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as problem:
        raise BundleError(f"{file}: not read, since it holds more than tensors or is damaged "
                          f"({' '.join(str(problem).split())[:200]}); nothing in it was executed. Where you "
                          "trust it, write its state_dict alone to a file, where it was trained") from None
    content = content if isinstance(content, dict) else {}
    table = next((content[name] for name in TABLES if name in content), None)
    if not isinstance(table, dict) or not all(isinstance(value, Tensor) for value in table.values()):
        raise BundleError(f"{file}: holds {sorted(map(str, content))[:8] or 'no table'}, expected the "
                          f"weights under one of {', '.join(TABLES)}; take the file that RoboVLMs wrote")
    empty = [name for name, value in table.items() if value.numel() == 0]
    if empty:
        raise BundleError(f"{file}: '{empty[0]}' is empty: the weights are spread over many files (ZeRO "
                          "stage 3); join them with the zero_to_fp32.py that lies beside the checkpoint")
    return {_unwrapped(name): value for name, value in table.items()}


def load_theirs(model: VLAModel, theirs: Mapping[str, Tensor], family: Family, source: str) -> None:
    """Give `model` their weights, all of them, and nothing else.

    Raises: BundleError naming weights that are unknown, missing, or of another shape.
    """
    expected, ours, unknown = model.state_dict(), {}, []
    for name, value in theirs.items():
        begin = next((begin for begin in family.keys if name.startswith(begin)), None)
        target = None if begin is None else family.keys[begin] + name.removeprefix(begin)
        if target in expected:
            ours[target] = value.reshape(1, 1, -1) if name == "action_token" else value
        elif not name.endswith(COMPUTED):
            unknown.append(name)
    missing = sorted(expected.keys() - ours.keys() - set(UNTRAINED))
    wrong = [f"{name} {tuple(value.shape)} for {tuple(expected[name].shape)}" for name, value in ours.items()
             if value.shape != expected[name].shape]
    if unknown or missing or wrong:
        raise BundleError(f"{source}: does not fit the model of its configuration: not known "
                          f"{unknown[:6] or 'none'}, missing {missing[:6] or 'none'}, of another shape "
                          f"{wrong[:6] or 'none'}; give the configuration that it was trained with")
    if family.scales_rows:
        query = HEAD_KEYS["action_token"]
        ours[query] = ours[query].float() * model.backbone.hidden_size**0.5
    model.load_state_dict(ours | {name: torch.zeros_like(expected[name]) for name in UNTRAINED})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when the bundle was written."""
    parser = argparse.ArgumentParser(prog="python -m vla_policy.import_robovlms",
                                     description="Turns a checkpoint of RoboVLMs into a bundle.")
    parser.add_argument("checkpoint", type=Path, help=".pt or .ckpt file, or a DeepSpeed folder")
    parser.add_argument("--config", type=Path, required=True, help="their .json beside the checkpoint")
    parser.add_argument("--robot", required=True, help="its contract: a file, or a name in config/robots")
    parser.add_argument("--output", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--vlm", help="folder or hub name of the vision-language model, for its config.json "
                                      "and tokenizer.json; else as their configuration says")
    parser.add_argument("--arm-units", type=float, nargs=ARM_SIZE, default=CALVIN_UNITS, metavar="UNIT",
                        help="contract units (m, rad) per unit of their action; CALVIN's by default")
    parser.add_argument("--cameras", nargs=2, default=("static", "wrist"), metavar=("STATIC", "WRIST"),
                        help="names of the two cameras in the contract")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        bundle = import_checkpoint(options.checkpoint, load_yaml(TheirConfig, options.config, ConfigError),
                                   load_contract(find_contract(options.robot)), options.vlm, options.arm_units,
                                   tuple(options.cameras))
        save_bundle(options.output, bundle)
    except VlaError as problem:
        console.print(str(problem), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    config = bundle.config
    console.print(f"{options.output}: backbone {config.backbone}, window {config.history_length}, chunk "
                  f"{config.action_chunk_size}, cameras {', '.join(config.cameras)}",
                  markup=False, highlight=False)
    return 0


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = [path / name for name in DEEPSPEED_FILES if (path / name).is_file()]
    if not files:
        found = sorted(file.name for file in path.iterdir())[:8] if path.is_dir() else "nothing"
        raise BundleError(f"{path}: found {found}, expected a file, or a DeepSpeed folder with "
                          f"{DEEPSPEED_FILES[0]}; correct the path")
    return files[0]


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _model_config(theirs: TheirConfig, family: Family, cameras: tuple[str, str],
                  backbone_options: dict[str, Any]) -> ModelConfig:
    static, wrist = cameras
    return parse(ModelConfig, {
        "backbone": family.backbone, "formulation": "policy_head", "action_head": "lstm",
        "history_length": theirs.window_size, "action_chunk_size": theirs.fwd_pred_next_n, "execute_rows": 1,
        "cameras": [wrist, static] if theirs.use_hand_rgb else [static], "image_size": theirs.image_size,
        "proprioception": False, "gripper_hysteresis": 0.0, "backbone_options": backbone_options,
        "head_options": {"hidden_size": theirs.act_head.hidden_size, "layers": theirs.act_head.num_layers,
                         "skip": False, "decoder": "robovlms"},
    }, "their configuration", ConfigError)


def _check_contract(contract: RobotContract, arm_units: Sequence[float]) -> None:
    if contract.action.gripper is None or len(contract.action_names) != ARM_SIZE + 1:
        raise ContractError(f"contract '{contract.name}': got actions {list(contract.action_names)}, "
                            f"expected {ARM_SIZE} for the arm and a gripper; choose the contract of the "
                            "robot that the checkpoint was trained for")
    if len(arm_units) != ARM_SIZE or min(arm_units) <= 0:
        raise ConfigError(f"arm_units: got {list(arm_units)}, expected {ARM_SIZE} positive numbers")


def _normalizer(theirs: TheirConfig, names: tuple[str, ...], arm_units: Sequence[float]) -> Normalizer:
    """Their fixed range in contract units; mean and std are those of a uniform spread over it."""
    low, high = (theirs.norm_min, theirs.norm_max) if theirs.norm_action else (-1.0, 1.0)
    return Normalizer(names=names, min_span=min(arm_units) * (high - low) / 2,
                      low=tuple(low * unit for unit in arm_units),
                      high=tuple(high * unit for unit in arm_units),
                      mean=tuple((low + high) / 2 * unit for unit in arm_units),
                      std=tuple((high - low) / 12**0.5 * unit for unit in arm_units))


if __name__ == "__main__":
    sys.exit(main())

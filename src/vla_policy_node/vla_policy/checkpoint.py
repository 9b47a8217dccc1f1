"""A trained policy in, one folder out, and back: all that a policy needs to run anywhere.

    model.safetensors  config.yaml  normalizer.json  contract.yaml  tokenizer.json  manifest.json

manifest.json holds the sha256 of every other file, which loading checks. There is no pickle in a bundle, so
loading executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import BundleError, ConfigError, ContractError
from vla_policy.model.config import ModelConfig, ModelFile, load_model_file
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel, build_model
from vla_policy.normalizer import Normalizer
from vla_policy.observation.proprioception import proprioception_names
from vla_policy.strict import StrictModel, load_yaml

FORMAT = "vla_policy bundle 1"
WEIGHTS, CONFIG, NORMALIZER = "model.safetensors", "config.yaml", "normalizer.json"
CONTRACT, TOKENIZER, MANIFEST = "contract.yaml", "tokenizer.json", "manifest.json"
FILES = (WEIGHTS, CONFIG, NORMALIZER, CONTRACT, TOKENIZER)


class Manifest(StrictModel):
    """What a bundle is.

    files: name -> sha256. provenance: how it was made. instructions: task -> sentences it was trained on.
    """

    format: str
    files: dict[str, str]
    provenance: dict[str, Any] = {}
    instructions: dict[str, tuple[str, ...]] = {}


class Normalizers(StrictModel):
    """The normaliser of the proprioception (None where the model feels nothing) and of the arm's actions."""

    state: Normalizer | None
    action: Normalizer


@dataclass(frozen=True, slots=True)
class Bundle:
    """A policy in parts. `file`: the model file it was trained from. `contract`: the robot it is for."""

    model: VLAModel
    file: ModelFile
    contract: RobotContract
    state_normalizer: Normalizer | None
    action_normalizer: Normalizer
    tokenizer: Tokenizer
    provenance: dict[str, Any] = field(default_factory=dict)
    instructions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.file.model


def save_bundle(folder: Path | str, bundle: Bundle) -> None:
    """Write `bundle` to `folder`, replacing an older bundle there. A crash never leaves half a bundle.

    Raises: BundleError where `folder` holds something else, or where the normalisers are not those of the
    contract's columns.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise BundleError(f"{folder}: got a folder without {MANIFEST}, expected a bundle or an empty place; "
                          "choose another folder")
    normalizers = Normalizers(state=bundle.state_normalizer, action=bundle.action_normalizer)
    _check_columns("bundle to save", bundle.config, bundle.contract, normalizers)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_parts(fresh, bundle, normalizers)
        manifest = Manifest(format=FORMAT, files={name: _sha256(fresh / name) for name in FILES},
                            provenance=bundle.provenance, instructions=bundle.instructions)
        (fresh / MANIFEST).write_text(_json(manifest), encoding="utf-8")
        fresh.chmod(0o755)
        _replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load_bundle(folder: Path | str, device: str = "cpu") -> Bundle:
    """Read and check a bundle; the model comes in evaluation mode on `device`.

    Raises: BundleError naming the file, what is wrong with it and what to do.
    """
    folder = Path(folder)
    manifest = _checked_manifest(folder)
    try:
        file = load_model_file(folder / CONFIG)
        contract = load_contract(folder / CONTRACT)
        normalizers = load_yaml(Normalizers, folder / NORMALIZER, BundleError)
        backbone = resolve(BACKBONES, file.model.backbone, "backbone")
        tokenizer = Tokenizer.load(folder / TOKENIZER, backbone.prompt(file.model))
        _check_columns(str(folder / NORMALIZER), file.model, contract, normalizers)
        model = build_model(file.model, contract, tokenizer.vocabulary_size)
    except (ConfigError, ContractError) as problem:
        raise BundleError(f"{folder}: {problem}; it was written by another version: train it again") from None
    _load_weights(model, folder / WEIGHTS)
    return Bundle(model.to(device).eval(), file, contract, normalizers.state, normalizers.action, tokenizer,
                  manifest.provenance, manifest.instructions)


def check_fits(bundle: RobotContract, robot: RobotContract, config: ModelConfig) -> None:
    """Refuse a robot that a policy was not trained for.

    bundle: the contract in the bundle. robot: the one of the robot at hand. Raises: ContractError with both
    values side by side for every difference in actions, rate, frames, pose, and the cameras and joints that
    the model uses.
    """
    differences = [f"{what}: bundle {ours}, robot {theirs}"
                   for what, ours, theirs in _compared(bundle, robot, config) if ours != theirs]
    if differences:
        raise ContractError(f"the policy does not fit robot '{robot.name}' (trained for '{bundle.name}'): "
                            + "; ".join(differences) + "; choose another policy, or correct the robot's "
                                                       "contract")


def _compared(bundle: RobotContract, robot: RobotContract,
              config: ModelConfig) -> Iterator[tuple[str, Any, Any]]:
    """What must agree: (name, value in the bundle, value of the robot)."""
    yield "action kind", str(bundle.action.kind), str(robot.action.kind)
    yield "action names", list(bundle.action_names), list(robot.action_names)
    yield "action units", list(bundle.action_units), list(robot.action_units)
    yield "action rate_hz", bundle.action.rate_hz, robot.action.rate_hz
    yield "base_frame", bundle.base_frame, robot.base_frame
    yield "tool_frame", bundle.tool_frame, robot.tool_frame
    if config.proprioception:
        yield "pose", "yes" if bundle.pose else "no", "yes" if robot.pose else "no"
        for name in config.proprioception_joints:
            theirs = "yes" if name in robot.joints.names else f"no, has {list(robot.joints.names)}"
            yield f"joint '{name}'", "yes", theirs
    for name in config.cameras:
        yield f"camera '{name}'", _camera_size(bundle, name), _camera_size(robot, name)


def _camera_size(contract: RobotContract, name: str) -> str:
    camera = contract.cameras.get(name)
    return f"{camera.width}x{camera.height}" if camera else f"none, has {list(contract.cameras)}"


def _write_parts(folder: Path, bundle: Bundle, normalizers: Normalizers) -> None:
    save_model(bundle.model, str(folder / WEIGHTS))
    options = bundle.config.backbone_options | bundle.model.backbone.stored_options()
    config = bundle.config.model_copy(update={"backbone_options": options})
    file = bundle.file.model_copy(update={"model": config})
    for name, part in ((CONFIG, file), (CONTRACT, bundle.contract)):
        text = yaml.safe_dump(part.model_dump(mode="json"), sort_keys=False, width=110)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / NORMALIZER).write_text(_json(normalizers), encoding="utf-8")
    bundle.tokenizer.save(folder / TOKENIZER)


def _json(part: StrictModel) -> str:
    return json.dumps(part.model_dump(mode="json"), indent=1) + "\n"


def _replace(fresh: Path, folder: Path) -> None:
    """Put `fresh` where `folder` is.

    A folder that is not empty cannot be renamed over, so the old one steps aside first.
    """
    if not folder.exists():
        os.rename(fresh, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_manifest(folder: Path) -> Manifest:
    missing = [name for name in (MANIFEST, *FILES) if not (folder / name).is_file()]
    if missing:
        what = f"missing {', '.join(missing)}" if folder.is_dir() else "no such folder"
        raise BundleError(f"{folder}: {what}, expected a bundle with {', '.join((*FILES, MANIFEST))}; "
                          "copy the whole folder, or train a policy")
    manifest = load_yaml(Manifest, folder / MANIFEST, BundleError)
    if manifest.format != FORMAT:
        raise BundleError(f"{folder / MANIFEST}: got format '{manifest.format}', expected '{FORMAT}'; "
                          "train the policy again with this version")
    for name in FILES:
        expected, got = manifest.files.get(name), _sha256(folder / name)
        if got != expected:
            raise BundleError(f"{folder / name}: truncated or altered: got {(folder / name).stat().st_size} "
                              f"bytes with sha256 {got}, expected sha256 {expected}; copy the bundle again "
                              "from where it was made")
    return manifest


def _check_columns(where: str, config: ModelConfig, contract: RobotContract,
                   normalizers: Normalizers) -> None:
    joints = config.proprioception_joints
    state_names = proprioception_names(contract, joints) if config.proprioception else None
    arm_names = contract.action_names[:-1] if contract.action.gripper else contract.action_names
    for part, normalizer, names in (("state", normalizers.state, state_names),
                                    ("action", normalizers.action, arm_names)):
        got = normalizer.names if normalizer else None
        if got != names:
            raise BundleError(f"{where}: the {part} normaliser has columns {got}, expected {names} by the "
                              "contract and the model's configuration; fit it on these columns, or copy the "
                              "bundle again")


def _load_weights(model: VLAModel, path: Path) -> None:
    try:
        missing, unexpected = load_model(model, str(path), strict=False)
    except (SafetensorError, RuntimeError) as problem:
        raise BundleError(f"{path}: the weights do not fit {CONFIG}: {' '.join(str(problem).split())}; "
                          "these files are not of one training: copy the bundle again") from None
    if missing or unexpected:
        raise BundleError(f"{path}: the weights do not fit {CONFIG}: missing {sorted(missing) or 'none'}, "
                          f"not expected {sorted(unexpected) or 'none'}; these files are not of one "
                          "training: copy the bundle again")
    finite = all(torch.isfinite(value).all() for value in model.state_dict().values())
    if not finite:
        raise BundleError(f"{path}: some weights are not finite; the training diverged: train again")

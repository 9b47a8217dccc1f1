"""A contract and a model file in, an untrained but whole policy bundle out, for the tests beside this."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vla_policy.checkpoint import Bundle
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile, load_model_file
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.vla import VLAModel, build_model
from vla_policy.normalizer import Normalizer
from vla_policy.observation.proprioception import proprioception_names
from vla_policy.strict import parse
from vla_policy.types import Observation, Pose

torch.set_num_threads(1)  # small tensors on shared machines: more threads only get in each other's way

CONFIG = Path(__file__).resolve().parents[2] / "config"
SENTENCES = ("pick up the red block", "lift the green cube", "open the drawer")


def tabletop() -> RobotContract:
    """The embedded simulator's contract."""
    return load_contract(CONFIG / "robots" / "tabletop.yaml")


def model_file(**changes: object) -> ModelFile:
    """The shipped model file, made small, with `changes` to its model section."""
    shipped = load_model_file(CONFIG / "models" / "tiny_tabletop.yaml").model_dump(mode="json")
    small = {"image_size": 32, "history_length": 4, "text_length": 8,
             "backbone_options": {"width": 32, "visual_width": 16, "layers": 2, "heads": 4},
             "head_options": {"hidden_size": 16, "decoder_size": 32}}
    shipped["model"].update(small | changes)
    return parse(ModelFile, shipped, "test", ConfigError)


def live_model(file: ModelFile, contract: RobotContract, vocabulary_size: int) -> VLAModel:
    """A random model whose history counts: what starts at zero gets random weights too."""
    torch.manual_seed(0)
    model = build_model(file.model, contract, vocabulary_size)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def bundle(**changes: object) -> Bundle:
    """A whole bundle with random weights."""
    contract, file = tabletop(), model_file(**changes)
    tokenizer = resolve(BACKBONES, file.model.backbone, "backbone").tokenizer(file.model, SENTENCES)
    rng = np.random.default_rng(0)
    state_names = proprioception_names(contract, file.model.proprioception_joints)
    return Bundle(model=live_model(file, contract, tokenizer.vocabulary_size), file=file, contract=contract,
                  state_normalizer=Normalizer.fit(rng.normal(size=(50, len(state_names))), state_names),
                  action_normalizer=Normalizer.fit(rng.normal(0, 0.01, (50, 6)), contract.action_names[:6]),
                  tokenizer=tokenizer, provenance={"command": "none"},
                  instructions={"lift_red": SENTENCES[:1]})


def observation(index: int) -> Observation:
    """A made-up observation of the tabletop, the same for the same index."""
    rng = np.random.default_rng(index)
    images = {name: rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for name in ("static", "wrist")}
    quaternion = rng.normal(size=4)
    pose = Pose(rng.normal(size=3), quaternion / np.linalg.norm(quaternion))
    return Observation(index * 200_000_000, images, rng.normal(size=8), pose)

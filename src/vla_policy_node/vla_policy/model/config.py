"""A model file (YAML or JSON) in, a ModelFile out: the parts of a policy, what they see, how far they plan.

    {"model": {"backbone": "tiny", "action_head": "lstm", "history_length": 8, "action_chunk_size": 8},
     "training": {"batch_size": 32, "learning_rate": 1e-3, "epochs": 5, "warmup_ratio": 0.05}}
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vla_policy.errors import ConfigError
from vla_policy.model.combinations import check_combination
from vla_policy.model.registry import BACKBONES, FORMULATIONS, HEADS, resolve
from vla_policy.strict import StrictModel, load_yaml, parse

Count = Annotated[int, Field(ge=1)]


def _of(registry: Mapping[str, str], key: str, attribute: str, chosen: dict[str, Any]) -> Any:
    """What the part named by `key` says for a value that the file leaves open; unknown parts are refused
    later.
    """
    name = chosen.get(key)
    return getattr(resolve(registry, name, key), attribute) if name in registry else None


class ModelConfig(StrictModel):
    """What a policy is made of. Checked as a whole: parts that do not combine are refused by name.

    history_length: frames W the policy looks back on, `execute_rows` control rows apart.
    action_chunk_size: rows K it predicts. execute_rows: rows after which it is asked again.
    cameras: names from the robot contract, in the order the model sees them. image_size: side of its square
    images [px].
    text_length: most tokens of an instruction. proprioception_joints: joints it feels beside the tool pose.
    gripper_hysteresis: how far past one half the gripper's probability must go to change its state.
    What a file leaves open follows from the parts it names: image_size and text_length from the backbone,
    action_space from the head, a window of one frame from formulation one_step.
    backbone_options, head_options: validated by the `Options` of the chosen class.
    """

    backbone: str = "tiny"
    formulation: str = "policy_head"
    action_head: str = "lstm"
    action_space: Literal["continuous", "discrete"] = Field(
        default_factory=partial(_of, HEADS, "action_head", "action_space"))
    history_length: Count = Field(
        default_factory=lambda chosen: 1 if chosen.get("formulation") == "one_step" else 8)
    action_chunk_size: Count = 8
    execute_rows: Count = 4
    cameras: Annotated[tuple[str, ...], Field(min_length=1)] = ("static", "wrist")
    image_size: Count = Field(default_factory=partial(_of, BACKBONES, "backbone", "image_size"))
    text_length: Count = Field(default_factory=partial(_of, BACKBONES, "backbone", "text_length"))
    proprioception: bool = True
    proprioception_joints: tuple[str, ...] = ()
    gripper_hysteresis: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    backbone_options: dict[str, Any] = {}
    head_options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _combines(self) -> ModelConfig:
        backbone = resolve(BACKBONES, self.backbone, "backbone")
        formulation = resolve(FORMULATIONS, self.formulation, "formulation")
        head = resolve(HEADS, self.action_head, "action_head")
        parse(backbone.Options, self.backbone_options, "backbone_options", ConfigError)
        parse(head.Options, self.head_options, "head_options", ConfigError)
        check_combination(self, backbone, formulation, head)
        backbone.check(self)
        head.check(self)
        if self.execute_rows > self.action_chunk_size:
            raise ConfigError(f"execute_rows: got {self.execute_rows}, expected at most action_chunk_size "
                              f"{self.action_chunk_size}; lower it, or predict a longer chunk")
        if len(set(self.cameras)) != len(self.cameras):
            raise ConfigError(f"cameras: got {list(self.cameras)}, expected each camera once")
        if self.proprioception_joints and not self.proprioception:
            raise ConfigError(f"proprioception_joints: got {list(self.proprioception_joints)} with "
                              "proprioception false; set it true, or name no joints")
        return self


class ModelFile(StrictModel):
    """A file of config/models. `training` holds the run's hyper-parameters; the trainer validates them."""

    model: ModelConfig
    training: dict[str, Any] = {}


def load_model_file(path: Path | str) -> ModelFile:
    """Read config/models/<name>.yaml (or .json). Raises: ConfigError naming every mistake."""
    return load_yaml(ModelFile, path, ConfigError)

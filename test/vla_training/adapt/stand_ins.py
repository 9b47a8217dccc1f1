"""A training file in; a copy for a twin and small data sets that stand in for its folders out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla_policy.contract import RobotContract
from vla_training.datasets.lerobot import Feature, ShardWriter, finalize

SIDE, FRAMES, EPISODES, RATE_HZ = 32, 6, 2, 5.0
SMALL_HEAD = {"hidden_size": 8, "layers": 1, "skip": False, "decoder": "robovlms"}
QUICK = {"steps": 2, "batch_size": 4, "accumulation_steps": 1, "workers": 0, "threads": 1, "precision": "fp32",
         "validation_share": 0.5, "validate_every": 2, "export_every": 2, "watch": {"open_loop": {"episodes": 0}}}
IMAGE = Feature("video", (SIDE, SIDE, 3), ("height", "width", "channels"))


def columns_of(preset: str | None, contract: RobotContract) -> dict[str, Feature]:
    """What the published data set has, of which the presets tell, or a recording of one's own."""
    if preset == "bridge":
        return {"observation/image_0": IMAGE, "observation/state": Feature("float32", (7,)),
                "action": Feature("float32", (7,))}
    if preset == "rt1":
        return {"observation/image": IMAGE, "observation/base_pose_tool_reached": Feature("float32", (7,)),
                "action/world_vector": Feature("float32", (3,)), "action/rotation_delta": Feature("float32", (3,)),
                "action/gripper_closedness_action": Feature("float32", (1,))}
    cameras = {f"observation.images.{name}": IMAGE for name in contract.cameras}
    names = contract.action_names
    return cameras | {"action": Feature("float32", (int(contract.action.rate_hz / RATE_HZ), len(names)), names)}


def write_stand_in(root: Path, preset: str | None, contract: RobotContract, seed: int) -> None:
    """A few frames of noise with the columns of a data set."""
    rng, features = np.random.default_rng(seed), columns_of(preset, contract)
    writer = ShardWriter(root, 0, features, RATE_HZ)
    for episode in range(EPISODES):
        columns = {name: rng.integers(0, 255, (FRAMES, *feature.shape), dtype=np.uint8) if feature.dtype == "video"
                   else rng.uniform(-0.02, 0.02, (FRAMES, *feature.shape)) for name, feature in features.items()}
        for name in columns:
            if name == "action":
                columns[name][..., -1] = episode  # the gripper: closed in one, open in the other
        writer.add_episode(columns, ("open the drawer", "lift the cup")[episode], {})
    finalize(root, [writer.close()], features, RATE_HZ, contract.name)


def stand_in_file(path: Path, folder: Path, contract: RobotContract, changes: dict[str, Any]) -> Path:
    """A copy of the training file at `path` in `folder`, with a twin and data of noise in place of what it names.

    changes: to its training section.
    """
    file: dict[str, Any] = yaml.safe_load(path.read_text())
    file["model"] |= {"image_size": SIDE, "text_length": 8, "backbone_options": {"weights": "random-tiny"},
                      "head_options": SMALL_HEAD}
    training = file["training"]
    for number, source in enumerate(training["datasets"]):
        stand_in = folder / f"data{number}"
        write_stand_in(stand_in, source.get("preset"), contract, seed=number)
        source["path"] = str(stand_in)
    del training["epochs"]
    training |= QUICK | changes
    copy = folder / path.name
    copy.write_text(yaml.safe_dump(file, sort_keys=False))
    return copy

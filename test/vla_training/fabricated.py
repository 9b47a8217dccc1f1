"""A seed in, a small dataset and its training config out: what the tests of training share. No simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml

from vla_policy.contract import RobotContract, load_contract
from vla_training.datasets.lerobot import Shard, ShardWriter, finalize
from vla_training.tabletop.demonstrator import features

torch.set_num_threads(1)

CONFIG = Path(__file__).resolve().parents[2] / "config"
IMAGE_SIZE = 32
ROWS_PER_FRAME = 4
LENGTHS = (5, 3, 9, 4)  # frames of the episodes: shorter and longer than a window of 4
SENTENCES = ("open the drawer", "lift the red block")


def tabletop() -> RobotContract:
    """The embedded simulator's contract."""
    return load_contract(CONFIG / "robots" / "tabletop.yaml")


def episode_columns(length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random columns of one episode; images vary slowly, as camera images do."""
    shade = rng.integers(30, 220, (length, 1, 1, 3))
    image = np.broadcast_to(shade, (length, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8)
    quaternion = np.tile([1.0, 0.0, 0.0, 0.0], (length, 1))
    action = rng.normal(0.0, 0.01, (length, ROWS_PER_FRAME, 7))
    action[..., 6] = rng.integers(0, 2, (length, ROWS_PER_FRAME))
    return {
        "observation.images.static": image,
        "observation.images.wrist": image[:, ::-1],
        "observation.state": rng.normal(size=(length, 8)).astype(np.float32),
        "observation.pose": np.hstack([rng.normal(size=(length, 3)), quaternion]).astype(np.float32),
        "observation.target_position": rng.normal(size=(length, 3)).astype(np.float32),
        "action": action.astype(np.float32),
    }


def write_shard(root: Path, file_index: int, lengths: tuple[int, ...], seed: int) -> tuple[Shard, list[dict]]:
    """One process' share of a dataset; also the columns that went in."""
    rng = np.random.default_rng(seed)
    writer = ShardWriter(root, file_index, features(tabletop(), IMAGE_SIZE, ROWS_PER_FRAME), 5.0)
    written = [episode_columns(length, rng) for length in lengths]
    for number, columns in enumerate(written):
        task = SENTENCES[number % len(SENTENCES)]
        writer.add_episode(columns, task, {"task_name": task.replace(" ", "_"), "seed": number})
    return writer.close(), written


def write_dataset(root: Path) -> list[dict]:
    """A dataset of two shards. Returns the columns of its episodes in order."""
    shards, written = [], []
    for index in range(2):
        shard, columns = write_shard(root, index, LENGTHS[2 * index : 2 * index + 2], seed=index)
        shards.append(shard)
        written += columns
    finalize(root, shards, features(tabletop(), IMAGE_SIZE, ROWS_PER_FRAME), 5.0, "tabletop")
    return written


def write_config(path: Path, dataset: Path, **training: object) -> Path:
    """A training YAML for a model of a few thousand weights."""
    settings = {
        "datasets": [{"path": str(dataset)}],
        "steps": 4,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "threads": 1,
        "stages": [
            {"until": 0.5, "window": 1, "batch_size": 4},
            {"until": 1.0, "window": 4, "batch_size": 2},
        ],
        "losses": {"grounding_weight": 0.5},
        "validation_share": 0.25,
        "validate_every": 2,
    }
    model = {
        "image_size": IMAGE_SIZE,
        "history_length": 4,
        "text_length": 8,
        "proprioception_joints": ["finger_joint"],
        "backbone_options": {"width": 16, "visual_width": 16, "layers": 1, "heads": 2},
        "head_options": {"hidden_size": 8, "decoder_size": 16},
    }
    path.write_text(yaml.safe_dump({"model": model, "training": settings | training}))
    return path

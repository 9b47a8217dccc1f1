"""A folder and sizes in, a small split in CALVIN's layout with known content out, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

TASKS = (("open_drawer", "pull the drawer open"), ("push_red_block_left", "slide the red block to the left"))
SIZES = {"rgb_static": (200, 200), "rgb_gripper": (84, 84)}


def calvin_frame(number: int, sizes: dict[str, tuple[int, int]] = SIZES) -> dict[str, np.ndarray]:
    """What episode_{number}.npz holds: images that compress about as well as rendered ones, and random states."""
    rng = np.random.default_rng(number)
    frame: dict[str, np.ndarray] = {
        "actions": rng.normal(0, 0.3, 7),
        "rel_actions": np.clip(rng.normal(0, 0.3, 7), -1, 1),
        "robot_obs": rng.normal(0, 0.3, 15),
        "scene_obs": rng.normal(0, 0.3, 24),
    }
    for column in ("actions", "rel_actions", "robot_obs"):
        frame[column][-1] = 1.0 if number % 2 else -1.0
    for camera, (name, (height, width)) in enumerate(sizes.items()):
        shade = np.array([number % 250, 40 + 100 * camera, 90]) + np.linspace(0, 30, width)[:, None]
        image = np.broadcast_to(shade, (height, width, 3)) + rng.integers(0, 4, (height, width, 1))
        frame[name] = np.clip(image, 0, 255).astype(np.uint8)
        frame[name.replace("rgb", "depth")] = np.full((height, width), 3.5, np.float32)
    return frame


def write_calvin(
    root: Path,
    lengths: Sequence[int] = (20, 12),
    windows: Sequence[tuple[int, int]] = ((2, 9), (5, 14), (21, 30)),
    first: int = 0,
    sizes: dict[str, tuple[int, int]] = SIZES,
) -> Path:
    """A split: play episodes of these lengths, their frames numbered from `first`, as the annotated windows are."""
    (root / "lang_annotations").mkdir(parents=True)
    for number in range(sum(lengths)):
        np.savez_compressed(root / f"episode_{first + number:07d}.npz", **calvin_frame(first + number, sizes))
    stops = np.cumsum(lengths) + first
    np.save(root / "ep_start_end_ids.npy", np.stack([stops - lengths, stops - 1], 1))
    np.save(root / "scene_info.npy", {"calvin_scene_D": [first, int(stops[-1]) - 1]})
    told = [TASKS[i % len(TASKS)] for i in range(len(windows))]
    annotations = {
        "language": {
            "ann": [sentence for _, sentence in told],
            "task": [task for task, _ in told],
            "emb": np.zeros((len(windows), 1, 384), np.float32),
        },
        "info": {"episodes": [], "indx": [(np.int64(first + low), np.int64(first + high)) for low, high in windows]},
    }
    np.save(root / "lang_annotations/auto_lang_ann.npy", annotations)
    return root

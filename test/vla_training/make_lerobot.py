"""A folder and sizes in, a small LeRobot data set with known content out, for tests and benchmarks."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_training.datasets.lerobot import Feature, ShardWriter, finalize
from vla_training.datasets.lerobot.video import VideoWriter

CAMERAS = ("observation.images.static", "observation.images.wrist")
TASKS = ("open the drawer", "lift the red block", "press the button")
COLUMNS = {
    "observation.state": Feature("float32", (8,), tuple(f"joint{i}" for i in range(8))),
    "observation.pose": Feature("float32", (7,), ("x", "y", "z", "qx", "qy", "qz", "qw")),
    "action": Feature("float32", (7,), ("x", "y", "z", "rx", "ry", "rz", "gripper")),
}


def camera_frame(camera: int, episode: int, frame: int, height: int, width: int) -> np.ndarray:
    """Told apart from every other by its colour, also after compression: red counts frames, green episodes."""
    across = np.linspace(-20, 20, width)[:, None]
    shade = np.array([20 + 7 * (frame % 30), 30 + 40 * (episode % 5), 70 + 100 * camera])
    return np.broadcast_to(np.clip(shade + across, 0, 255), (height, width, 3)).astype(np.uint8)


def camera_frames(camera: int, episode: int, length: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """All frames of an episode, one at a time."""
    for frame in range(length):
        yield camera_frame(camera, episode, frame, *size)


def episode_rows(episode: int, length: int) -> dict[str, np.ndarray]:
    """The small columns of an episode, random but the same each time; poses are unit quaternions."""
    rng = np.random.default_rng(episode)
    rows = {key: rng.normal(0, 0.01, (length, *feature.shape)).astype(np.float32) for key, feature in COLUMNS.items()}
    rows["observation.pose"][:, 3:] = (0, 0, 0, 1)
    rows["action"][:, 6] = rng.integers(0, 2, length)
    return rows


def write_lerobot(
    root: Path,
    lengths: Sequence[int] = (12, 9, 15),
    size: tuple[int, int] = (48, 64),
    cameras: Sequence[str] = CAMERAS,
    fps: float = 10.0,
    shards: int = 1,
) -> Path:
    """Version 3.0 by our writer, images in mp4; episode i has `lengths[i]` frames and the sentence TASKS[i % 3]."""
    features = {name: Feature("video", (*size, 3)) for name in cameras} | COLUMNS
    parts = np.array_split(np.arange(len(lengths)), shards)
    written = []
    for index, part in enumerate(parts):
        writer = ShardWriter(root, index, features, fps)
        for episode in part:
            length = lengths[episode]
            images = {name: camera_frames(camera, int(episode), length, size) for camera, name in enumerate(cameras)}
            task = TASKS[episode % len(TASKS)]
            extra = {"task_name": task.replace(" ", "_"), "seed": int(episode)}
            writer.add_episode(images | episode_rows(episode, length), task, extra)
        written.append(writer.close())
    finalize(root, written, features, fps, "test")
    return root


def write_lerobot_images(root: Path, lengths: Sequence[int] = (6, 4), size: tuple[int, int] = (48, 64)) -> Path:
    """Version 3.0 with PNG images in the data file, of which every second one only gives its path."""
    write_lerobot(root, lengths, size)
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for camera, name in enumerate(CAMERAS):
        items = []
        for episode, length in enumerate(lengths):
            for frame in range(length):
                png = cv2.imencode(".png", camera_frame(camera, episode, frame, *size)[..., ::-1])[1].tobytes()
                file = f"images/{name}/{episode}_{frame}.png"
                if frame % 2:
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    (root / file).write_bytes(png)
                items.append({"bytes": None if frame % 2 else png, "path": file})
        table = table.append_column(name, pa.array(items))
    pq.write_table(table, path, row_group_size=4)
    for video in (root / "videos").rglob("*.mp4"):
        video.unlink()
    info = json.loads((root / "meta/info.json").read_text())
    for name in CAMERAS:
        info["features"][name]["dtype"] = "image"
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def write_lerobot_v21(root: Path, lengths: Sequence[int] = (12, 9, 15), size: tuple[int, int] = (48, 64)) -> Path:
    """Version 2.1: a data file and videos for each episode, chunks of two episodes."""
    write_lerobot(root / "v3", lengths, size)
    info = json.loads((root / "v3/meta/info.json").read_text())
    info |= {
        "codebase_version": "v2.1",
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    table, lines = pq.read_table(root / "v3/data/chunk-000/file-000.parquet"), io.StringIO()
    for episode, length in enumerate(lengths):
        place = {"episode_chunk": episode // 2, "episode_index": episode}
        path = root / info["data_path"].format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(sum(lengths[:episode]), length), path)
        for camera, name in enumerate(CAMERAS):
            video = VideoWriter(root / info["video_path"].format(video_key=name, **place), 10.0, *size)
            for frame in range(length):
                video.write(camera_frame(camera, episode, frame, *size))
            video.close()
        lines.write(json.dumps({"episode_index": episode, "tasks": [TASKS[episode % 3]], "length": length}) + "\n")
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/episodes.jsonl").write_text(lines.getvalue())
    return root

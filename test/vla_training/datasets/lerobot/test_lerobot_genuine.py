"""Our reader is held to what the genuine LeRobot wrote, and the genuine LeRobot to what our writer wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_lerobot import CAMERAS, TASKS, camera_frame, episode_rows, write_lerobot

from vla_training.datasets.lerobot import LeRobotSource

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures/lerobot"
SIZE = (48, 64)


def fixture_image(camera: int, episode: int, frame: int) -> np.ndarray:
    """As in fixtures/lerobot/record_with_lerobot.py, which cannot be imported without lerobot."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0] = 20 + 15 * frame
    image[..., 1] = 40 + 70 * episode
    image[..., 2] = 60 + 120 * camera
    image[8:24, 4 + 2 * frame : 20 + 2 * frame] = (255, 255, 255)
    return image


@pytest.mark.parametrize(("folder", "tolerance"), [("v3_videos", 4.0), ("v3_images", 0.0), ("v21_videos", 4.0)])
def test_what_lerobot_wrote_is_read(folder: str, tolerance: float) -> None:
    """tolerance: of an image's mean colour, [0, 255]; frames differ by 15, and AV1 halves the resolution of colours."""
    data = LeRobotSource(FIXTURES / folder)
    expected = json.loads((FIXTURES / folder / "expected.json").read_text())
    assert data.spec.rate_hz == expected["rate_hz"]
    assert data.spec.columns["observation.state"].names == ("pan", "lift", "elbow", "gripper")
    assert list(data.spec.cameras.values()) == [(48, 64)] * 2
    assert len(data.episodes) == len(expected["episodes"]) == 3
    for number, episode in enumerate(expected["episodes"]):
        assert data.episodes[number].instructions == (episode["task"],)
        columns = data.columns(number)
        for name, values in episode["columns"].items():
            assert np.array_equal(columns[name], np.array(values, np.float32)), name
        frames = np.array([episode["length"] - 1, *range(episode["length"]), 2, 2])
        for view, camera in enumerate(data.spec.cameras):
            found = data.images(number, camera, frames).mean((1, 2))
            wanted = np.stack([fixture_image(view, number, int(frame)).mean((0, 1)) for frame in frames])
            assert np.abs(found - wanted).max() <= tolerance, (number, camera)


READ_WITH_LEROBOT = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset
data = LeRobotDataset("test/tiny", root=sys.argv[1], video_backend="pyav")
cameras = list(data.meta.camera_keys)
rows = [{"task": item["task"], "episode": int(item["episode_index"]), "action": item["action"].tolist(),
         "colours": [(item[camera].mean((1, 2)) * 255).tolist() for camera in cameras]}
        for item in (data[i] for i in range(len(data)))]
print(json.dumps({"episodes": data.num_episodes, "cameras": cameras, "rows": rows}))
"""


def lerobot_python() -> str | None:
    """An interpreter that has lerobot: LEROBOT_PYTHON, or this one."""
    for python in filter(None, (os.environ.get("LEROBOT_PYTHON"), sys.executable)):
        found = subprocess.run([python, "-c", "import lerobot"], capture_output=True, timeout=200)
        if found.returncode == 0:
            return python
    return None


@pytest.mark.timeout(600)  # its imports alone take a minute on a busy machine
def test_lerobot_reads_what_we_write(tmp_path: Path) -> None:
    python = lerobot_python()
    if python is None:
        pytest.skip("no lerobot here; name an interpreter that has it in LEROBOT_PYTHON")
    lengths = (5, 4, 6)
    root = write_lerobot(tmp_path / "set", lengths, SIZE, shards=2)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    command = [python, "-c", READ_WITH_LEROBOT, str(root)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=350, env=environment)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["episodes"] == 3 and found["cameras"] == list(CAMERAS)
    places = [(episode, frame) for episode, length in enumerate(lengths) for frame in range(length)]
    for (episode, frame), row in zip(places, found["rows"], strict=True):
        assert row["task"] == TASKS[episode] and row["episode"] == episode
        assert row["action"] == episode_rows(episode, lengths[episode])["action"][frame].tolist()
        wanted = [camera_frame(view, episode, frame, *SIZE).mean((0, 1)) for view in range(2)]
        assert np.abs(np.array(row["colours"]) - wanted).max() <= 3.0

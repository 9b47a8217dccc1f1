"""The console window: what it says, what it shows, and what it does where there is no screen."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vla_msgs.msg import PolicyStatus

from vla_policy_node import console

CONTRACT = Path(__file__).resolve().parents[2] / "config/robots/tabletop.yaml"


@pytest.mark.parametrize(("status", "words"), [
    (None, "not heard yet"),
    (PolicyStatus(state=PolicyStatus.IDLE), "type an instruction"),
    (PolicyStatus(state=PolicyStatus.UNCONFIGURED), "not active"),
    (PolicyStatus(state=PolicyStatus.WAITING, detail="camera.wrist is silent"), "camera.wrist is silent"),
    (PolicyStatus(state=PolicyStatus.RUNNING, instruction="open the drawer", inferences=7, model_ms=6.5),
     "'open the drawer', 7 inferences, model 6.5 ms"),
])
def test_it_says_what_the_policy_does(status: PolicyStatus | None, words: str) -> None:
    assert words in console.describe_policy(status)


def test_an_image_keeps_its_shape_and_colours() -> None:
    image = np.zeros((60, 120, 3), np.uint8)
    image[:, :, 0] = 200
    header, pixels = console._as_ppm(image).split(b" 255 ", 1)
    assert header == b"P6 %d %d" % (console.VIEW_PX, console.VIEW_PX // 2)
    assert pixels[:3] == bytes([200, 0, 0])


@pytest.mark.parametrize(("module_path", "reason"), [(None, "no screen to open a window on"),
                                                     ("without_tk", "no tkinter; install it")])
def test_without_a_window_it_says_why_and_leaves(spawn: Any, tmp_path: Path, module_path: str | None,
                                                 reason: str) -> None:
    """`without_tk`: a module in the way of the real tkinter, as on a system whose Python comes without it."""
    environment = {"DISPLAY": ""}
    if module_path is not None:
        (tmp_path / "tkinter.py").write_text("raise ImportError('no Tk here')\n", encoding="utf-8")
        environment["PYTHONPATH"] = f"{tmp_path}:{os.environ['PYTHONPATH']}"
    elif console.tk is None:
        pytest.skip("this Python has no tkinter")
    process = spawn([sys.executable, "-m", "vla_policy_node.console", "--ros-args", "-p", f"contract:={CONTRACT}"],
                    env=environment)
    assert process.wait(30.0) == 1
    assert reason in process.output and "headless:=true" in process.output
    assert "Traceback" not in process.output

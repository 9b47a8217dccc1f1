"""teleop.launch.py as a person uses it: what it starts, what it refuses, what it says."""

from __future__ import annotations

import signal

import pytest
from processes import Spawn

LAUNCH = ["ros2", "launch", "vla_policy", "teleop.launch.py"]


@pytest.mark.parametrize(("argument", "words"), [
    ("device:=joi", ["device:=joi", "did you mean 'joy'"]),
    ("contract:=tabeltop", ["got 'tabeltop'", "did you mean 'tabletop'"]),
    ("mapping:=joi", ["got 'joi'", "did you mean 'joy'"]),
    ("joy_node:=treu", ["joy_node:=treu", "did you mean 'true'"]),
])
def test_a_wrong_argument_starts_nothing(spawn: Spawn, argument: str, words: list[str]) -> None:
    process = spawn([*LAUNCH, argument])
    assert process.wait() == 1
    assert all(word in process.output for word in words), process.output
    assert "process started" not in process.output


def test_a_device_that_does_not_fit_the_robot_ends_the_launch_in_words(spawn: Spawn) -> None:
    process = spawn([*LAUNCH, "device:=leader"])
    assert process.wait() == 1
    assert "a leader arm drives joints: got robot tabletop of kind ee_delta" in process.output
    assert "the teleoperation ended, see its last line above" in process.output


def test_a_keyboard_is_sent_to_a_terminal(spawn: Spawn) -> None:
    process = spawn([*LAUNCH, "device:=keyboard"])
    process.wait_for("run in one of its own: ros2 run vla_policy teleop_node --ros-args -p contract:=")
    assert "process started" not in process.output


def test_the_node_starts_and_ends_with_the_launch(spawn: Spawn) -> None:
    process = spawn([*LAUNCH, "joy_node:=false", "operator:=ada"])
    process.wait_for("teleop_node-[0-9]+.: process started")
    process.wait_for("the joy on /joy drives tabletop")
    process.signal(signal.SIGINT)
    assert process.wait() in (0, 130, -signal.SIGINT), process.output
    assert "Traceback" not in process.output

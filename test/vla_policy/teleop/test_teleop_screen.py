"""What an operator should know in; a picture that holds it and fits a terminal of 80 x 24 out."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError
from vla_policy.resources import find_contract, find_teleop
from vla_policy.teleop.mapping import Device, load_mapping
from vla_policy.teleop.operator import TeleopState
from vla_policy.teleop.screen import Terminal, View, draw, key_help

COLUMNS, ROWS = 80, 24
VIEW = View(robot_name="tabletop", speed="slow", state=TeleopState.OFF, policy_drives=True,
            message="hold a key to take over", guard=("active", "run 7 drives the robot"),
            robot=("x +0.407  y -0.012  z +0.240 m   gripper sent 1.00 (0 closed, 1 open)",),
            recorder=("recording", "12 s, 3401 messages, 0 dropped: open the drawer"), said=("estop: done",))


def picture(view: View, robot: str = "tabletop") -> str:
    contract = load_contract(find_contract(robot))
    keys = list(key_help(load_mapping(Device.KEYBOARD, find_teleop("keyboard"), contract), contract))
    console = Console(file=io.StringIO(), width=COLUMNS, height=ROWS)
    console.print(draw(view, keys))
    return console.file.getvalue()


def test_it_tells_who_drives_and_what_everything_does() -> None:
    text = picture(VIEW)
    for words in ("tabletop", "speed: slow", "the policy drives", "hold a key to take over", "active", "run 7",
                  "x +0.407", "gripper sent 1.00", "recording", "0 dropped: open the drawer", "estop: done",
                  "w s x + -", "h hand back", "space estop", "backspace record discard"):
        assert words in text, text


@pytest.mark.parametrize(("view", "words"), [
    (replace(VIEW, policy_drives=False), "nobody drives"),
    (replace(VIEW, state=TeleopState.HOLDING), "you hold the arm"),
    (replace(VIEW, state=TeleopState.DRIVING), "YOU DRIVE"),
    (replace(VIEW, state=TeleopState.BLOCKED), "BLOCKED"),
])
def test_every_state_has_its_word(view: View, words: str) -> None:
    assert words in picture(view)


@pytest.mark.parametrize("robot", ["tabletop", "franka", "so101"])
def test_it_fits_the_terminal_with_long_sentences_too(robot: str) -> None:
    long = "the robot's state is missing, expected joints and pose; " * 3
    text = picture(replace(VIEW, message=long[:150], guard=("STOPPED", long[:140]), said=(long,) * 4), robot)
    lines = text.rstrip("\n").splitlines()
    assert len(lines) <= ROWS and max(map(len, lines)) <= COLUMNS, text


def test_joints_are_named_where_joints_are_driven() -> None:
    text = picture(VIEW, "so101")
    assert "q a shoulder_pan + -" in text and "rx" not in text


def test_without_a_terminal_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(ConfigError, match="needs a terminal of its own"):
        Terminal()

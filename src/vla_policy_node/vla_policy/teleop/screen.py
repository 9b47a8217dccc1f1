"""What an operator at a keyboard should know in, one picture for a terminal of 80 x 24 out. The terminal itself too."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError
from vla_policy.teleop.keyboard import decode_keys
from vla_policy.teleop.mapping import MOTION_NAMES, KeyboardMapping, motion_pairs
from vla_policy.teleop.operator import TeleopState

DRAW_PERIOD_S = 0.1
_READ_BYTES = 1024
_GUARD_STYLES = {"idle": "cyan", "active": "green", "limiting": "yellow", "STOPPED": "bold white on red"}
_STATE_STYLES = {TeleopState.OFF: "cyan", TeleopState.HOLDING: "bold yellow", TeleopState.DRIVING: "bold green",
                 TeleopState.BLOCKED: "bold white on red"}


@dataclass(frozen=True, slots=True)
class View:
    """What is shown. guard, recorder: (state, sentence). robot: lines on where it is. said: newest last."""

    robot_name: str
    speed: str
    state: TeleopState
    policy_drives: bool
    message: str
    guard: tuple[str, str]
    robot: tuple[str, ...]
    recorder: tuple[str, str]
    said: tuple[str, ...]


def draw(view: View, keys: Iterable[tuple[str, str]]) -> RenderableType:
    """The picture of a view. keys: (key, what it does)."""
    lines = [Text(f" {view.robot_name}   speed: {view.speed} ", style="reverse"),
             Text.assemble((f" {_who(view)} ", _STATE_STYLES[view.state]), "  ", view.message),
             _line("guard", *view.guard, _GUARD_STYLES.get(view.guard[0], "dim"))]
    lines += [Text.assemble((f"{name:<9}", "dim"), text) for name, text in zip(("robot", ""), view.robot, strict=False)]
    lines.append(_line("recorder", *view.recorder, "bold red" if view.recorder[0] == "recording" else "cyan"))
    cells = [Text.assemble((key, "bold"), f" {words}") for key, words in keys]
    title = "keys: hold one to move, let go to hold the arm"
    panel = Panel(Columns(cells, equal=True), title=title, border_style="dim")
    said = [Text(sentence, style="dim", overflow="ellipsis", no_wrap=True) for sentence in view.said]
    return Group(*lines, panel, *said)


def key_help(mapping: KeyboardMapping, contract: RobotContract) -> Iterator[tuple[str, str]]:
    """(key, what it does) for every key of a mapping that does something on this robot."""
    by_joints = contract.action.kind is ActionKind.JOINT_POSITION
    pairs = mapping.joints if by_joints else motion_pairs(mapping.motion)
    names = contract.action.joints if by_joints else MOTION_NAMES
    for name, pair in zip(names, pairs, strict=False):
        if pair is not None:
            yield f"{pair[0]} {pair[1]}", f"{name} + -"
    for name, key in mapping.press.keys.items():
        yield key, name.replace("_", " ")


def _who(view: View) -> str:
    if view.state is TeleopState.OFF:
        return "the policy drives" if view.policy_drives else "nobody drives"
    return {TeleopState.HOLDING: "you hold the arm", TeleopState.DRIVING: "YOU DRIVE",
            TeleopState.BLOCKED: "BLOCKED"}[view.state]


def _line(name: str, state: str, sentence: str, style: str) -> Text:
    return Text.assemble((f"{name:<9}", "dim"), (f" {state} ", style), " ", sentence)


class Terminal:
    """The terminal of standard input and output: keys as they come, and a picture that is drawn anew.

    Raises: ConfigError where there is none, as in a launch.
    """

    def __init__(self) -> None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigError("device 'keyboard' needs a terminal of its own: got a standard input or output that is "
                              "none, as in a launch; run in a terminal `ros2 run vla_policy teleop_node --ros-args "
                              "-p device:=keyboard -p contract:=NAME`")
        self._live = Live(screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._drawn_s = 0.0

    def __enter__(self) -> Terminal:
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._live.stop()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def keys(self) -> list[str]:
        """The keys that came since the last call; does not wait. Raises: EOFError when the terminal is gone."""
        if not select.select([sys.stdin], [], [], 0)[0]:
            return []
        data = os.read(sys.stdin.fileno(), _READ_BYTES)
        if not data:
            raise EOFError("the terminal was closed")
        return decode_keys(data)

    def is_due(self) -> bool:
        """Whether it is time to draw again."""
        return time.monotonic() - self._drawn_s >= DRAW_PERIOD_S

    def show(self, picture: RenderableType) -> None:
        """Draw."""
        self._drawn_s = time.monotonic()
        self._live.update(picture, refresh=True)

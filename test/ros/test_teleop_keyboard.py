"""Keys typed into a pseudo-terminal in; what the robot is sent, and what the screen shows, out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from guard_rig import guard_command, relaxed_contract, twist_values
from processes import Spawn
from teleop_rig import TeleopRig, teleop_command
from vla_msgs.msg import SafetyStatus, TeleopStatus

ROWS, COLUMNS = 24, 80
KEY_PERIOD_S = 0.1
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Typist:
    """A process on a pseudo-terminal of 80 x 24, read by a thread as a terminal window would."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.settings_before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(command, env={**env, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True)
        os.close(slave)
        self._data = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # Linux's way to say that the other end is closed
            while data := os.read(self._master, 1 << 16):
                self._data += data

    def type(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    @property
    def shown(self) -> str:
        """Everything shown so far, without the codes that place and colour it."""
        return _CONTROL.sub("", self._data.decode(errors="replace"))

    @property
    def settings(self) -> list:
        """How the terminal treats keys."""
        return termios.tcgetattr(self._master)

    def close(self) -> None:
        """End the process and the terminal."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10.0)
        os.close(self._master)


@pytest.fixture
def rig(spawn: Spawn, tmp_path: Path, ros_env: dict[str, str]) -> Iterator[TeleopRig]:
    """A robot with a guard, and `rig.typist` at a keyboard."""
    path = relaxed_contract("tabletop", tmp_path)
    spawn(guard_command(path))
    rig = TeleopRig(path, (0.5, 0.0, 0.3))
    rig.connect()
    rig.typist = Typist(teleop_command(f"contract:={path}", "device:=keyboard"), ros_env)
    rig.until_teleop(TeleopStatus.OFF, "hold a key to take over")
    yield rig
    rig.typist.close()
    rig.close()


def until_shown(rig: TeleopRig, words: str) -> None:
    rig.until(lambda: words in rig.typist.shown, f"'{words}' on the screen, which shows {rig.typist.shown[-3000:]}")


def keep_typing(rig: TeleopRig, key: str, condition: Callable[[], bool], what: str) -> None:
    """Repeat a key, as a terminal does while it is held, until the condition holds."""
    last_ns = 0

    def press_until() -> bool:
        nonlocal last_ns
        if rig.now_ns() - last_ns > KEY_PERIOD_S * 1e9:
            last_ns = rig.now_ns()
            rig.typist.type(key)
        return bool(condition())

    rig.until(press_until, what)


def test_keys_drive_while_they_repeat_and_the_arm_holds_when_they_cease(rig: TeleopRig) -> None:
    until_shown(rig, "nobody drives")
    until_shown(rig, "x +0.500")
    keep_typing(rig, "w", lambda: rig.arm and twist_values(rig.arm[-1])[0] > 0.05, "motion along x")
    keep_typing(rig, "w", lambda: "YOU DRIVE" in rig.typist.shown, "YOU DRIVE on the screen")
    rig.until(lambda: not twist_values(rig.arm[-1]).any(), "standstill")
    rig.until_teleop(TeleopStatus.HOLDING, "hold a key to drive")
    until_shown(rig, "you hold the arm")
    assert not np.array(rig.until_fresh_twists(5)).any()
    assert rig.safety[-1].state == SafetyStatus.IDLE
    rig.typist.type("h")
    rig.until_intervention(False)
    until_shown(rig, "hand_back: the operator handed back")


def test_the_space_bar_stops_and_the_screen_says_how_to_go_on(rig: TeleopRig) -> None:
    rig.typist.type(" ")
    rig.until_state(SafetyStatus.STOPPED, SafetyStatus.ESTOP)
    until_shown(rig, "BLOCKED")
    until_shown(rig, "emergency stop requested")
    rig.typist.type("wwww")
    rig.serve(0.5)
    assert not any(twist_values(msg).any() for msg in rig.arm)
    rig.typist.type("z")
    rig.until_state(SafetyStatus.IDLE)
    until_shown(rig, "reset_guard: reset after ESTOP")


def test_escape_leaves_and_the_terminal_is_as_it_was(rig: TeleopRig) -> None:
    until_shown(rig, "escape")
    assert rig.typist.settings != rig.typist.settings_before
    rig.typist.type("Q")
    until_shown(rig, "key 'Q' does nothing")
    rig.typist.type("\x1b")
    rig.until(lambda: rig.typist.process.poll() is not None, "end of the process")
    assert rig.typist.process.returncode == 0
    assert rig.typist.settings == rig.typist.settings_before
    assert "Traceback" not in rig.typist.shown


def test_a_signal_ends_it_cleanly(rig: TeleopRig) -> None:
    rig.typist.process.send_signal(signal.SIGTERM)
    rig.until(lambda: rig.typist.process.poll() is not None, "end of the process")
    assert rig.typist.process.returncode == 0
    assert rig.typist.settings == rig.typist.settings_before


def test_without_a_terminal_it_is_refused_in_words(spawn: Spawn) -> None:
    process = spawn(teleop_command("contract:=tabletop", "device:=keyboard"))
    assert process.wait() == 2
    assert "device 'keyboard' needs a terminal of its own" in process.output
    assert "ros2 run vla_policy teleop_node" in process.output
    assert "Traceback" not in process.output

"""Axes, buttons, keys and leader joints in; wishes and presses, or what is wrong, out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from guarding import joint_contract, twist_contract

from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, DeviceError
from vla_policy.strict import parse
from vla_policy.teleop.inputs import Inputs
from vla_policy.teleop.keyboard import KeyReader, decode_keys
from vla_policy.teleop.leader import LeaderReader
from vla_policy.teleop.mapping import Axis, KeyboardMapping, LeaderMapping, PadMapping
from vla_policy.teleop.pad import PadReader, deflection
from vla_policy.teleop.wish import Press
from vla_policy.types import seconds_to_ns

PAD: dict[str, Any] = {
    "device": "joy", "axes": {"topic": "/joy", "type": "sensor_msgs/msg/Joy", "count": 4},
    "buttons": {"topic": "/joy", "count": 5}, "speeds": {"normal": 0.5, "slow": 0.1, "fast": 1.0},
    "motion": {"x": {"axis": 1, "dead_zone": 0.0}, "rz": {"axis": 0, "sign": -1, "dead_zone": 0.0}},
    "joints": [{"axis": 2, "dead_zone": 0.0}],
    "press": {"dead_man": 4, "slow": 3, "gripper": 0, "hand_back": 1, "reset_guard": [2, 1]},
}
KEYS: dict[str, Any] = {
    "device": "keyboard", "act_s": 0.2, "speeds": {"normal": 0.5, "slow": 0.1},
    "motion": {"x": ["w", "s"], "y": ["a", "d"]},
    "joints": [["q", "a"]], "press": {"gripper": "g", "slow": "1", "estop": "space", "quit": "escape"},
}
LEADER: dict[str, Any] = {
    "device": "leader", "topic": "/leader", "buttons": {"topic": "/joy", "count": 1}, "press": {"dead_man": 0},
    "joints": {"a": {"leader": "one", "sign": -1, "offset_rad": 0.5}, "b": {"leader": "two", "scale": 2.0}},
    "gripper": {"leader": "grip", "closed_at": 0.2, "open_at": 1.2},
}


def pad(contract: RobotContract | None = None, **changes: Any) -> PadReader:
    return PadReader(parse(PadMapping, {**PAD, **changes}, "pad", ConfigError), contract or twist_contract())


def down(*buttons: int) -> list[int]:
    return [int(index in buttons) for index in range(5)]


# ---- pads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "value", "expected"), [
    ({}, 0.1, 0.0), ({}, -0.1, 0.0), ({}, 1.0, 1.0), ({}, -1.0, -1.0), ({}, 0.55, 0.5), ({}, 1.7, 1.0),
    ({"sign": -1}, 1.0, -1.0), ({"scale": 0.3}, -1.0, -0.3), ({"dead_zone": 0.0, "response": 2.0}, -0.5, -0.25),
    ({"dead_zone": 0.0}, 1e-6, 1e-6),
])
def test_a_deflection_becomes_a_share_of_speed(axis: dict[str, Any], value: float, expected: float) -> None:
    assert deflection(parse(Axis, {"axis": 0, **axis}, "axis", ConfigError), value) == pytest.approx(expected)


def test_axes_move_the_tool_and_buttons_choose_the_speed() -> None:
    reader = pad()
    assert not reader.wish().dead_man and not reader.wish().motion.any()
    reader.hear_axes([1.0, -0.5, 0.0, 0.0])
    reader.buttons.hear(down(4))
    wish = reader.wish()
    assert wish.dead_man and wish.opening is None
    np.testing.assert_allclose(wish.motion, [-0.25, 0, 0, 0, 0, -0.5])
    reader.buttons.hear(down(3))
    assert not reader.wish().dead_man
    np.testing.assert_allclose(reader.wish().motion, [-0.05, 0, 0, 0, 0, -0.1])


def test_axes_jog_joints_in_their_order() -> None:
    reader = pad(joint_contract())
    reader.hear_axes([0.0, 0.0, -1.0, 0.0])
    np.testing.assert_allclose(reader.wish().motion, [-0.5, 0.0])


def test_a_gripper_axis_tells_an_opening() -> None:
    reader = pad(gripper={"axis": 3, "closed_at": -1.0, "open_at": 1.0}, press={"dead_man": 4})
    for value, opening in ((-1.0, 0.0), (0.0, 0.5), (1.0, 1.0), (3.0, 1.0)):
        reader.hear_axes([0.0, 0.0, 0.0, value])
        assert reader.wish().opening == pytest.approx(opening)


def test_a_press_counts_once_and_not_what_was_down_at_first() -> None:
    reader = pad()
    reader.buttons.hear(down(0))
    assert reader.buttons.take_presses() == []
    for pressed in ([], [0], [0], [0, 4], [4], [0, 1]):
        reader.buttons.hear(down(*pressed))
    assert reader.buttons.take_presses() == [Press.GRIPPER, Press.GRIPPER, Press.HAND_BACK]
    assert reader.buttons.take_presses() == []


def test_a_chord_hides_its_single_buttons_also_while_it_is_let_go() -> None:
    reader = pad()
    for pressed in ([], [2], [1, 2], [1], []):
        reader.buttons.hear(down(*pressed))
    assert reader.buttons.take_presses() == [Press.RESET_GUARD]


@pytest.mark.parametrize(("axes", "words"), [([0.0] * 3, "/joy: got 3 axes, expected 4"), ([], "got 0 axes"),
                                             ([0.0, np.nan, 0.0, 0.0], "expected numbers")])
def test_axes_of_another_device_are_refused(axes: list[float], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        pad().hear_axes(axes)


def test_buttons_of_another_device_are_refused() -> None:
    with pytest.raises(DeviceError, match="/joy: got 6 buttons, expected 5"):
        pad().buttons.hear([0] * 6)


def test_a_device_speaks_when_all_its_topics_do() -> None:
    def broken() -> None:
        raise DeviceError("got 3 axes")

    inputs = Inputs(["/a", "/b"])
    inputs.take("/a", lambda: None, 5)
    assert inputs.heard_ns is None
    inputs.take("/b", lambda: None, 7)
    inputs.take("/rare", lambda: None, 1)
    assert inputs.heard_ns == 5
    inputs.take("/a", broken, 9)
    inputs.take("/b", lambda: None, 9)
    assert inputs.mistake == "got 3 axes"
    inputs.take("/a", lambda: None, 10)
    assert (inputs.mistake, inputs.heard_ns) == ("", 9)


# ---- keyboard ---------------------------------------------------------------------------------------------------


def keyboard(contract: RobotContract | None = None) -> KeyReader:
    return KeyReader(parse(KeyboardMapping, KEYS, "keys", ConfigError), contract or twist_contract())


def test_a_key_acts_for_a_short_time_after_each_press() -> None:
    reader, act_ns = keyboard(), seconds_to_ns(0.2)
    assert not reader.wish(0).dead_man
    assert reader.hear("w", 0)
    assert reader.wish(act_ns - 1).dead_man
    np.testing.assert_allclose(reader.wish(act_ns - 1).motion, [0.5, 0, 0, 0, 0, 0])
    assert not reader.wish(act_ns).dead_man and not reader.wish(act_ns).motion.any()
    reader.hear("w", act_ns)
    reader.hear("w", act_ns + 10)
    reader.hear("d", act_ns + 20)
    np.testing.assert_allclose(reader.wish(2 * act_ns).motion, [0.5, -0.5, 0, 0, 0, 0])
    assert reader.wish(2 * act_ns + 15).motion[0] == 0.0


def test_the_opposite_key_wins_at_once() -> None:
    reader = keyboard()
    reader.hear("w", 0)
    reader.hear("s", 10)
    np.testing.assert_allclose(reader.wish(20).motion[:1], [-0.5])


def test_keys_press_and_choose_speeds() -> None:
    reader = keyboard()
    assert reader.hear("1", 0) and reader.hear("space", 0) and not reader.hear("x", 0)
    assert reader.take_presses() == [Press.ESTOP]
    assert not reader.wish(1).dead_man  # an emergency stop drives nothing
    reader.hear("a", 2)
    assert reader.wish(3).motion[1] == pytest.approx(0.1)
    assert not reader.quits
    reader.hear("escape", 4)
    assert reader.quits


def test_the_gripper_key_acts_until_the_gripper_has_moved() -> None:
    reader = keyboard()
    reader.hear("g", 0)  # 4 openings a second: 0.25 s for the whole way
    assert reader.take_presses() == [Press.GRIPPER]
    assert reader.wish(seconds_to_ns(0.44)).dead_man and not reader.wish(seconds_to_ns(0.46)).dead_man


def test_keys_jog_joints() -> None:
    reader = keyboard(joint_contract())
    reader.hear("a", 0)
    np.testing.assert_allclose(reader.wish(1).motion, [-0.5, 0.0])


def test_bytes_of_a_terminal_become_keys() -> None:
    assert decode_keys(b"wW \x1b[A\x1bOD+\x7f\r\x1b") == ["w", "W", "space", "up", "left", "+", "backspace", "enter",
                                                          "escape"]
    assert decode_keys(b"\x00\x01\xc3\xa9") == []


# ---- leader arms ------------------------------------------------------------------------------------------------


def leader() -> LeaderReader:
    return LeaderReader(parse(LeaderMapping, LEADER, "leader", ConfigError), joint_contract())


def test_a_leaders_joints_become_targets() -> None:
    reader = leader()
    reader.buttons.hear([1])
    assert not reader.wish().dead_man  # the arm itself was not heard yet
    reader.hear_joints(["grip", "two", "other", "one"], [0.7, -0.1, 9.0, 0.2])
    wish = reader.wish()
    assert wish.dead_man
    np.testing.assert_allclose(wish.targets, [0.3, -0.2])
    assert wish.opening == pytest.approx(0.5)


@pytest.mark.parametrize(("names", "positions", "words"), [
    (["one", "two"], [0.0, 0.0], "joints grip are missing, got one, two"),
    (["one", "two", "grip"], [0.0, 0.0], "got 2 positions for 3 joints"),
    (["one", "two", "grip"], [0.0, float("nan"), 0.0], "got two = nan"),
])
def test_a_leader_that_is_not_the_mappings_is_refused(names: list[str], positions: list[float], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        leader().hear_joints(names, positions)

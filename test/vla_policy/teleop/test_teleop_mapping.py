"""Mapping files in; frozen mappings, or every mistake in words, out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError
from vla_policy.resources import find_contract, find_teleop
from vla_policy.teleop.mapping import Device, load_mapping

ROBOT = {Device.LEADER: "so101"}


def shipped(device: Device) -> dict[str, Any]:
    return yaml.safe_load(find_teleop(device).read_text())


def load(folder: Path, device: Device, data: dict[str, Any], robot: str = "") -> Any:
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_mapping(device, path, load_contract(find_contract(robot or ROBOT.get(device, "tabletop"))))


@pytest.mark.parametrize("device", Device)
@pytest.mark.parametrize("robot", ["tabletop", "ur5e", "franka", "so101", "calvin_absolute"])
def test_shipped_mappings_fit_the_shipped_robots(device: Device, robot: str) -> None:
    contract = load_contract(find_contract(robot))
    if device is Device.LEADER and robot != "so101":
        with pytest.raises(ConfigError, match="a leader arm drives joints"):
            load_mapping(device, find_teleop(device), contract)
    else:
        assert load_mapping(device, find_teleop(device), contract).device == device


@pytest.mark.parametrize(("device", "change", "words"), [
    (Device.JOY, {"press": {"gripper": 0}}, ["press.dead_man", "missing"]),
    (Device.JOY, {"press": {"dead_man": 5, "gripper": 11}}, ["press.gripper: got button 11", "0 .. 10"]),
    (Device.JOY, {"press": {"dead_man": 5, "gripper": 5}}, ["press.gripper: got [5], the button of dead_man"]),
    (Device.JOY, {"press": {"dead_man": 5, "record_start": [7, 6], "record_stop": [6, 7]}}, ["the button of"]),
    (Device.JOY, {"press": {"dead_man": 5, "griper": 0}}, ["unknown key 'press.griper'", "did you mean 'gripper'"]),
    (Device.JOY, {"press": {"dead_man": []}}, ["press.dead_man"]),
    (Device.JOY, {"motion": {"x": {"axis": 8}}}, ["motion.x.axis: got 8", "0 .. 7"]),
    (Device.JOY, {"motion": {"x": {"axis": 1, "sign": 2}}}, ["motion.x.sign"]),
    (Device.JOY, {"motion": {"x": {"axis": 1, "dead_zone": 1.0}}}, ["motion.x.dead_zone"]),
    (Device.JOY, {"motion": {"x": {"axis": 1, "scale": 1.5}}}, ["motion.x.scale"]),
    (Device.JOY, {"motion": {}}, ["motion: got nothing", "ee_delta"]),
    (Device.JOY, {"gripper": {"axis": 2, "closed_at": 1.0, "open_at": 1.0}}, ["both 1.0"]),
    (Device.JOY, {"gripper": {"axis": 2, "closed_at": 1.0, "open_at": 0.0}}, ["expected an axis or a button"]),
    (Device.JOY, {"speeds": {"fast": 1.2}}, ["speeds.fast"]),
    (Device.JOY, {"device": "spacemouse"}, ["device: got spacemouse, expected joy"]),
    (Device.SPACEMOUSE, {"axes": {"topic": "/t", "type": "geometry_msgs/msg/Twist", "count": 5}}, ["count: got 5"]),
    (Device.KEYBOARD, {"press": {"gripper": "w"}}, ["got w twice"]),
    (Device.KEYBOARD, {"press": {"gripper": "shift"}}, ["got 'shift'", "one character"]),
    (Device.KEYBOARD, {"act_s": 0}, ["act_s"]),
    (Device.LEADER, {"joints": {"shoulder_pan": {"leader": "a"}}}, ["joints: got shoulder_pan, exp", "wrist_roll"]),
])
def test_mistakes_are_named_with_their_place(tmp_path: Path, device: Device, change: dict[str, Any],
                                             words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, device, {**shipped(device), **change})
    assert all(word in str(refused.value) for word in words), refused.value


def test_a_mapping_without_what_moves_this_robot_is_refused(tmp_path: Path) -> None:
    data = {**shipped(Device.JOY), "joints": []}
    assert load(tmp_path, Device.JOY, data, "tabletop")
    with pytest.raises(ConfigError, match="joints: got nothing, expected what moves robot so101"):
        load(tmp_path, Device.JOY, data, "so101")

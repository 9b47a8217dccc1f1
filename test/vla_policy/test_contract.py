"""The shipped contracts and contracts with one mistake in; derived names or the sentence of refusal out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla_policy import contract as contract_module
from vla_policy.contract import load_contract, parse_contract
from vla_policy.errors import ContractError
from vla_policy.strict import StrictModel

ROBOTS = Path(__file__).resolve().parents[2] / "config" / "robots"


@pytest.fixture
def data() -> dict[str, Any]:
    return yaml.safe_load((ROBOTS / "tabletop.yaml").read_text())


def make_joint_position(data: dict[str, Any]) -> None:
    """Turn the tabletop contract into one for joint targets."""
    joints = data["joints"]["names"][:7]
    data["action"].update(kind="joint_position", joints=joints,
                          command={"topic": "/arm/joints", "type": "trajectory_msgs/msg/JointTrajectory"})
    data["limits"] = {"joint_position": [[-2.8, 2.8]] * 7, "joint_velocity": [1.0] * 7,
                      "joint_acceleration": [5.0] * 7}
    data["stop"]["behaviour"] = "hold_position"


@pytest.mark.parametrize("path", sorted(ROBOTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_contract_loads_and_bears_its_file_name(path: Path) -> None:
    contract = load_contract(path)
    assert contract.name == path.stem
    assert len(contract.action_names) == len(contract.action_units)
    assert len(contract.command_names) == len(contract.command_units)
    assert parse_contract(contract.model_dump(mode="json"), "dump") == contract


def test_tool_motion_names_units_and_rates(data: dict[str, Any]) -> None:
    contract = parse_contract(data, "t")
    assert contract.action_names == ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert contract.action_units == ("m", "m", "m", "rad", "rad", "rad", "fraction")
    assert contract.command_names == ("vx", "vy", "vz", "wx", "wy", "wz", "gripper")
    assert contract.command_units == ("m/s",) * 3 + ("rad/s",) * 3 + ("fraction",)
    assert contract.action_dt_ns == contract.control_dt_ns == 50_000_000


def test_tool_pose_names_and_units(data: dict[str, Any]) -> None:
    data["action"].update(kind="ee_pose",
                          command={"topic": "/arm/pose", "type": "geometry_msgs/msg/PoseStamped"})
    data["stop"]["behaviour"] = "hold_position"
    contract = parse_contract(data, "t")
    assert contract.action_names == ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert contract.command_names == ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")
    assert contract.command_units == ("m",) * 3 + ("quaternion",) * 4 + ("fraction",)


def test_joint_names_and_units_without_gripper(data: dict[str, Any]) -> None:
    make_joint_position(data)
    del data["action"]["gripper"]
    contract = parse_contract(data, "t")
    assert contract.action_names == contract.command_names == tuple(data["joints"]["names"][:7])
    assert contract.action_units == contract.command_units == ("rad",) * 7


def test_a_contract_cannot_be_changed(data: dict[str, Any]) -> None:
    contract = parse_contract(data, "t")
    with pytest.raises(ValueError, match="frozen"):
        contract.limits.linear_velocity_m_s = 9.0


Edit = Callable[[dict[str, Any]], Any]
MISTAKES: dict[str, tuple[Edit, str]] = {
    "unknown key": (lambda d: d.update(control_rate=20),
                    "unknown key 'control_rate'; did you mean 'control_rate_hz'?"),
    "unknown camera key": (lambda d: d["cameras"]["wrist"].update(widht=1),
                           "unknown key 'cameras.wrist.widht'; did you mean 'width'?"),
    "missing section": (lambda d: d.pop("watchdog"), "key 'watchdog' is missing"),
    "missing key": (lambda d: d["joints"].pop("max_age_s"), "key 'joints.max_age_s' is missing"),
    "text for a number": (lambda d: d["cameras"]["wrist"].update(width="224"),
                          "cameras.wrist.width: got '224', expected a valid integer"),
    "zero rate": (lambda d: d.update(control_rate_hz=0), "control_rate_hz: got 0, expected greater than 0"),
    "infinite limit": (lambda d: d["limits"].update(linear_velocity_m_s=float("inf")),
                       "limits.linear_velocity_m_s: got inf, expected a finite number"),
    "jump factor below 1": (lambda d: d["limits"].update(jump_factor=0.5), "limits.jump_factor: got 0.5"),
    "unknown encoding": (lambda d: d["cameras"]["wrist"].update(encoding="16UC1"),
                         "cameras.wrist.encoding: got '16UC1', expected 'rgb8', 'bgr8'"),
    "relative topic": (lambda d: d["pose"].update(topic="tcp_pose"),
                       "pose.topic: got 'tcp_pose', expected an absolute topic name"),
    "topic ending in a slash": (lambda d: d["pose"].update(topic="/tcp_pose/"),
                                "expected an absolute topic name"),
    "topic used twice": (lambda d: d["pose"].update(topic="/joint_states"),
                         "topic /joint_states is used twice"),
    "camera name": (lambda d: d["cameras"].update({"my cam": d["cameras"].pop("wrist")}),
                    "got 'my cam', expected a word"),
    "joint named twice": (lambda d: d["joints"].update(names=["a", "b", "a"]),
                          "joints.names: a is named twice"),
    "no joints": (lambda d: d["joints"].update(names=[]), "joints.names: got []"),
    "unknown action kind": (lambda d: d["action"].update(kind="ee_dleta"),
                            "action.kind: got 'ee_dleta', expected 'ee_delta'"),
    "command type of another kind": (
        lambda d: d["action"]["command"].update(type="geometry_msgs/msg/PoseStamped"),
        "action.command.type: got geometry_msgs/msg/PoseStamped, expected geometry_msgs/msg/TwistStamped "
        "for kind ee_delta"),
    "joints for a tool action": (lambda d: d["action"].update(joints=["joint1"]),
                                 "action.joints: got ['joint1']"),
    "stop of another kind": (lambda d: d["stop"].update(behaviour="hold_position"),
                             "stop.behaviour: got hold_position, expected zero_velocity or silence"),
    "gripper without stroke": (lambda d: d["action"]["gripper"].update(closed_at=1.0),
                               "action.gripper: closed_at and open_at are both 1.0"),
    "missing limits": (lambda d: d["limits"].pop("workspace"),
                       "limits.workspace is missing; kind ee_delta needs it"),
    "empty workspace": (lambda d: d["limits"]["workspace"].update(x=[0.7, 0.2]),
                        "limits.workspace.x: got [0.7, 0.2]"),
    "limit that would not be kept": (lambda d: d["limits"].update(joint_velocity=[1.0]),
                                     "limits.joint_velocity: kind ee_delta cannot keep it; take it out"),
    "no pose": (lambda d: d.pop("pose"), "pose is missing; limits.workspace needs the tool pose"),
    "no frame": (lambda d: d.update(base_frame=""), "base_frame: got ''"),
}
JOINT_MISTAKES: dict[str, tuple[Edit, str]] = {
    "no commanded joints": (lambda d: d["action"].update(joints=[]),
                            "kind joint_position needs the commanded joints"),
    "unknown commanded joint": (lambda d: d["action"]["joints"].__setitem__(0, "jiont1"),
                                "action.joints: 'jiont1' is not among joints.names; did you mean 'joint1'?"),
    "too few limits": (lambda d: d["limits"].update(joint_velocity=[1.0]),
                       "limits.joint_velocity: got 1 values, expected 7, one per action.joints"),
    "limit that would not be kept": (lambda d: d["limits"].update(linear_velocity_m_s=1.0),
                                     "limits.linear_velocity_m_s: kind joint_position cannot keep it"),
    "workspace without a pose": (
        lambda d: (d.pop("pose"), d["limits"].update(workspace={"x": [0, 1], "y": [0, 1], "z": [0, 1]})),
        "pose is missing; limits.workspace needs the tool pose"),
    "empty range": (lambda d: d["limits"]["joint_position"].__setitem__(2, [1, 1]),
                    "limits.joint_position.2: got [1.0, 1.0], an empty range"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(data: dict[str, Any], mistake: str) -> None:
    edit, words = MISTAKES[mistake]
    expect_refusal(data, edit, words)


@pytest.mark.parametrize("mistake", JOINT_MISTAKES)
def test_a_mistake_of_a_joint_contract_is_named(data: dict[str, Any], mistake: str) -> None:
    make_joint_position(data)
    assert parse_contract(data, "t").action_names[-1] == "gripper"
    edit, words = JOINT_MISTAKES[mistake]
    expect_refusal(data, edit, words)


def expect_refusal(data: dict[str, Any], edit: Edit, words: str) -> None:
    edit(data)
    with pytest.raises(ContractError) as caught:
        parse_contract(data, "robot.yaml")
    assert str(caught.value).startswith("robot.yaml: ") and words in str(caught.value)


def test_several_mistakes_come_together(data: dict[str, Any]) -> None:
    data["stop"]["behaviour"] = "hold_position"
    data["pose"]["topic"] = "/joint_states"
    with pytest.raises(ContractError, match=r"used twice.*stop\.behaviour"):
        parse_contract(data, "t")


def test_the_manual_names_every_key() -> None:
    manual = (ROBOTS.parents[1] / "docs" / "new-robot.md").read_text(encoding="utf-8")
    models = [model for model in vars(contract_module).values()
              if isinstance(model, type) and issubclass(model, StrictModel) and model is not StrictModel]
    keys = [(model.__name__, key) for model in models for key in model.model_fields]
    missing = [".".join(key) for key in keys if key[1] not in manual]
    assert len(models) > 8 and not missing

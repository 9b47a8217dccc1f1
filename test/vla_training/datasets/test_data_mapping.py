"""Published columns become the contract's: every convention, both ways; what does not fit is refused with both
values.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated import tabletop
from hypothesis import given
from hypothesis import strategies as st
from memory_source import MemorySource

from vla_policy.action.rotation import inverse
from vla_policy.action.rotation_forms import matrix_from, quaternion_from, rotation_as
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError, DataError
from vla_policy.model.config import ModelConfig
from vla_policy.strict import parse
from vla_training.datasets import conversions
from vla_training.datasets.config import RotationForm, Source
from vla_training.datasets.mapping import described
from vla_training.datasets.resolve import rate_of, resolve_cameras, resolve_mapping
from vla_training.datasets.source import EpisodeInfo

FRAMES = 5
JOINTS = tabletop().joints.names
MODEL = ModelConfig(image_size=16, proprioception_joints=("finger_joint",))
BLIND = ModelConfig(image_size=16, proprioception=False)
FORMS = RotationForm.__args__


def source_of(**settings: Any) -> Source:
    return parse(Source, {"path": "set"} | settings, "training", ConfigError)


def contract_of(kind: ActionKind) -> RobotContract:
    contract = tabletop()
    joints = JOINTS[:7] if kind is ActionKind.JOINT_POSITION else ()
    return contract.model_copy(update={"action": contract.action.model_copy(update={"kind": kind, "joints": joints})})


def data_of(names: dict[str, tuple[str, ...]] | None = None, **columns: np.ndarray) -> MemorySource:
    return MemorySource(Path("set"), [(EpisodeInfo("set, episode 0", FRAMES, ("go",)), columns)], names=names)


def poses(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions and quaternions away from gimbal lock, as a tool moves."""
    rng = np.random.default_rng(seed)
    angles = np.array([0.3, 0.2, -0.4]) + np.cumsum(rng.normal(0, 0.05, (FRAMES + 1, 3)), 0)
    return np.cumsum(rng.normal(0, 0.02, (FRAMES + 1, 3)), 0), quaternion_from("euler_xyz", angles)


def written(form: str, position: np.ndarray, quaternion: np.ndarray, unit: str = "m", angle: str = "rad") -> np.ndarray:
    rotation = rotation_as(form, quaternion)
    if form == "rotation_vector" or form.startswith("euler"):
        rotation = rotation / conversions.RADIANS[angle]
    return np.concatenate([position / conversions.METRES[unit], rotation], -1)


def mapped(source: Source, data: MemorySource, contract: RobotContract, model: ModelConfig = BLIND) -> np.ndarray:
    mapping = resolve_mapping(source, data, contract, model)
    return mapping.episode(data.columns(0, mapping.columns), "set, episode 0").actions


def pose_columns(name: str, form: str, **more: Any) -> dict[str, Any]:
    return {
        "position": f"{name}[0:3]",
        "rotation": f"{name}[3:{3 + rotation_as(form, np.eye(4)[3]).size}]",
        "rotation_as": form,
    } | more


def same_rows(rows: np.ndarray, position: np.ndarray, quaternion: np.ndarray) -> bool:
    got = matrix_from(quaternion_from("rotation_vector", rows[:, 0, 3:6].astype(np.float64)))
    return np.allclose(rows[:, 0, :3], position, atol=1e-6) and np.allclose(got, matrix_from(quaternion), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_targets_in_every_form_become_changes_and_back(form: str) -> None:
    position, quaternion = poses()
    state = written(form, position[:-1], quaternion[:-1], "mm", "deg")
    target = written(form, position[1:], quaternion[1:], "mm", "deg")
    units = {"position_unit": "mm", "rotation_unit": "deg"}
    said = {
        "state": {"pose": pose_columns("state", form, **units)},
        "actions": {"kind": "ee_pose", "pose": pose_columns("goal", form, **units), "gripper": {"part": "grip"}},
    }
    data = data_of(state=state, goal=target, grip=np.ones(FRAMES))
    rows = mapped(source_of(**said), data, contract_of(ActionKind.EE_POSE))
    assert same_rows(rows, position[1:], quaternion[1:])
    change = conversions.change_between((position[:-1], quaternion[:-1]), (position[1:], quaternion[1:]))
    rows = mapped(source_of(**said), data, contract_of(ActionKind.EE_DELTA))
    assert same_rows(rows, *change)
    data = data_of(state=state, change=rows[:, 0].astype(np.float64))
    said["actions"] = {
        "kind": "ee_delta",
        "pose": pose_columns("change", "rotation_vector"),
        "gripper": {"part": "change[6]"},
    }
    back = mapped(source_of(**said), data, contract_of(ActionKind.EE_POSE))
    assert same_rows(back, position[1:], quaternion[1:])


@given(st.integers(0, 1000))
def test_changes_in_the_tools_axes_become_the_bases(seed: int) -> None:
    position, quaternion = poses(seed)
    change = conversions.change_between((position[:-1], quaternion[:-1]), (position[1:], quaternion[1:]))
    own = conversions.tool_to_base(change, inverse(quaternion[:-1]))
    said = {
        "state": {"pose": pose_columns("state", "quaternion_xyzw")},
        "actions": {
            "kind": "ee_delta",
            "frame": "tool",
            "pose": pose_columns("action", "euler_ZYX"),
            "gripper": {"part": "grip"},
        },
    }
    data = data_of(
        state=written("quaternion_xyzw", position[:-1], quaternion[:-1]),
        action=written("euler_ZYX", *own),
        grip=np.ones(FRAMES),
    )
    assert same_rows(mapped(source_of(**said), data, contract_of(ActionKind.EE_DELTA)), *change)


def calvin_columns() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    position, quaternion = poses()
    angles = rotation_as("euler_xyz", quaternion)
    step = np.clip(np.hstack([np.diff(position, axis=0) / 0.02, np.diff(angles, axis=0) / 0.05]), -1, 1)
    reached = position[:-1] + step[:, :3] * 0.02, quaternion_from("euler_xyz", angles[:-1] + step[:, 3:] * 0.05)
    grip = np.where(np.arange(FRAMES) < 2, 1.0, -1.0)[:, None]
    observed = np.hstack([position[:-1], angles[:-1], np.full((FRAMES, 9), 0.04)])
    columns = {
        "robot_obs": observed,
        "rel_actions": np.hstack([step, grip]),
        "actions": np.hstack([reached[0], rotation_as("euler_xyz", reached[1]), grip]),
    }
    return columns, *conversions.change_between((position[:-1], quaternion[:-1]), reached)


@pytest.mark.parametrize("preset", ["calvin", "calvin_absolute"])
def test_calvins_scaled_differences_are_the_tools_motion(preset: str) -> None:
    columns, position, quaternion = calvin_columns()
    rows = mapped(source_of(preset=preset), data_of(**columns), contract_of(ActionKind.EE_DELTA))
    assert same_rows(rows, position, quaternion)
    assert rows[:, 0, 6].tolist() == [1, 1, 0, 0, 0]


def test_joint_changes_in_degrees_become_targets() -> None:
    joints = np.random.default_rng(0).normal(size=(FRAMES, 7))
    said = {
        "state": {"joints": {name: f"state[{i}]" for i, name in enumerate(JOINTS[:7])}, "joint_unit": "deg"},
        "actions": {
            "kind": "joint_position",
            "joints": {"part": "action[0:7]", "unit": "deg", "change": True},
            "gripper": {"part": "action[7]", "closed_at": 1.0, "open_at": 0.0},
        },
    }
    data = data_of(state=np.rad2deg(joints), action=np.hstack([np.full((FRAMES, 7), 2.0), np.ones((FRAMES, 1))]))
    rows = mapped(source_of(**said), data, contract_of(ActionKind.JOINT_POSITION))
    assert np.allclose(rows[:, 0, :7], joints + np.deg2rad(2.0), atol=1e-6)
    assert (rows[:, 0, 7] == 0).all()


def recorded(**more: np.ndarray) -> MemorySource:
    """What the recorder and `collect` write."""
    position, quaternion = poses()
    columns = {
        "observation.state": np.random.default_rng(0).normal(size=(FRAMES, 8)),
        "observation.pose": np.hstack([position[:-1], quaternion[:-1]]),
        "action": np.hstack([np.full((FRAMES, 6), 0.01), np.ones((FRAMES, 1))]),
    } | more
    return data_of({"action": tabletop().action_names, "observation.state": JOINTS}, **columns)


def test_a_recording_of_ours_needs_only_its_path() -> None:
    data = recorded()
    mapping = resolve_mapping(source_of(), data, tabletop(), MODEL)
    episode = mapping.episode(data.columns(0, mapping.columns), "set, episode 0")
    assert np.allclose(episode.actions[:, 0], data.columns(0)["action"])
    assert np.allclose(episode.state[:, :3], data.columns(0)["observation.pose"][:, :3])
    assert np.allclose(episode.state[:, 9], data.columns(0)["observation.state"][:, 7])


def test_other_columns_are_refused_beside_the_contracts() -> None:
    data = recorded()
    other = data_of({"action": ("vx", "vy")}, action=np.zeros((FRAMES, 2)))
    with pytest.raises(
        DataError, match="set: actions are vx, vy; contract 'tabletop' takes x, y, z, rx, ry, rz, gripper"
    ):
        resolve_mapping(source_of(), other, tabletop(), MODEL)
    with pytest.raises(DataError, match="its actions are ee_delta, contract 'tabletop' takes joint_position"):
        said = {"kind": "ee_delta", "pose": {"position": "action[0:3]", "rotation": "action[3:6]"}}
        resolve_mapping(source_of(actions=said), data, contract_of(ActionKind.JOINT_POSITION), MODEL)
    with pytest.raises(DataError, match=r"'action\[0:4\]' has 4 values \(x, y, z, rx\), expected 3"):
        said = {
            "kind": "ee_delta",
            "pose": {"position": "action[0:4]", "rotation": "action[3:6]"},
            "gripper": {"part": "action[6]"},
        }
        resolve_mapping(source_of(actions=said), data, tabletop(), MODEL)


def test_a_recording_for_another_contract_is_refused_with_both_values() -> None:
    data = recorded()
    data.spec = data.spec.__class__(
        **{name: getattr(data.spec, name) for name in data.spec.__slots__}
        | {"recorded_with": described(tabletop()) | {"base frame": "world"}}
    )
    with pytest.raises(
        DataError, match="base frame: the data was recorded with world, contract 'tabletop' has base_link"
    ):
        resolve_mapping(source_of(), data, tabletop(), MODEL)


def test_missing_names_come_with_the_nearest() -> None:
    data = recorded()
    with pytest.raises(DataError, match="no column 'acton'; did you mean 'action'"):
        said = {
            "kind": "ee_delta",
            "pose": {"position": "acton[0:3]", "rotation": "action[3:6]"},
            "gripper": {"part": "action[6]"},
        }
        resolve_mapping(source_of(actions=said), data, tabletop(), MODEL)
    with pytest.raises(ConfigError, match="unknown preset 'calvn'; did you mean 'calvin'"):
        resolve_mapping(source_of(preset="calvn"), data, tabletop(), MODEL)
    with pytest.raises(DataError, match="no camera 'wrst' for the contract's 'wrist'; did you mean 'wrist'"):
        resolve_cameras(source_of(cameras={"wrist": "wrst"}), data, tabletop(), MODEL)
    with pytest.raises(ConfigError, match="cameras: 'wrst' is not one of contract 'tabletop'; did you mean 'wrist'"):
        resolve_cameras(source_of(cameras={"wrst": "wrist"}), data, tabletop(), MODEL)
    with pytest.raises(DataError, match="joint 'finger_joint' of contract 'tabletop' is not mapped"):
        resolve_mapping(
            source_of(state={"pose": pose_columns("observation.pose", "quaternion_xyzw")}), data, tabletop(), MODEL
        )
    with pytest.raises(ConfigError, match="unknown key 'weigth'; did you mean 'weight'"):
        source_of(weigth=2.0)


def test_a_number_that_is_none_is_refused_by_episode_and_frame() -> None:
    bad = recorded().columns(0)["action"].copy()
    bad[3, 2] = np.nan
    data = recorded(action=bad)
    with pytest.raises(DataError, match="set, episode 0: frame 3: column 'action' is nan"):
        mapped(source_of(), data, tabletop(), MODEL)


def test_a_gripper_of_another_convention_is_refused() -> None:
    other = recorded().columns(0)["action"].copy()
    other[2:, 6] = -1.0
    with pytest.raises(DataError, match="goes from -1 to 1, the mapping says 0 is closed and 1 is open"):
        mapped(source_of(), recorded(action=other), tabletop(), MODEL)


def test_a_rate_that_nobody_tells_is_asked_for() -> None:
    data = recorded()
    data.spec = data.spec.__class__(
        **{name: getattr(data.spec, name) for name in data.spec.__slots__} | {"rate_hz": None}
    )
    assert rate_of(source_of(rate_hz=10.0), data) == 10.0
    with pytest.raises(DataError, match="does not say how many frames a second it has; name it in rate_hz"):
        rate_of(source_of(), data)


@pytest.mark.parametrize("weight", [0, -1.0])
def test_a_weight_that_draws_nothing_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight: got .* greater than 0"):
        source_of(weight=weight)


def test_mappings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ConfigError, match="kind joint_position takes 'joints' and no 'pose'"):
        source_of(actions={"kind": "joint_position", "pose": pose_columns("action", "euler_xyz")})
    with pytest.raises(ConfigError, match="difference subtracted: got rotation_as rotation_vector, expected euler"):
        source_of(
            actions={"kind": "ee_delta", "difference": "subtracted", "pose": pose_columns("action", "rotation_vector")}
        )
    with pytest.raises(ConfigError, match="got 'action\\[', expected a column"):
        source_of(place="action[")

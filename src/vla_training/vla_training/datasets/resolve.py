"""A source of a training file and the contract in, the mapping, cameras and rate that hold for it out."""

from __future__ import annotations

from collections.abc import Mapping

from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError, DataError, nearest
from vla_policy.model.config import ModelConfig
from vla_training.datasets.config import ActionMapping, GripperColumn, JointColumns, PoseColumns, Source, StateMapping
from vla_training.datasets.mapping import ContractMapping, described
from vla_training.datasets.presets import PRESETS, Preset
from vla_training.datasets.source import Column, EpisodeSource, SourceSpec

PLACE_COLUMN = "observation.target_position"  # where our own recordings keep it
IMAGE_PREFIX = "observation.images."


def resolve_mapping(
    source: Source, data: EpisodeSource, contract: RobotContract, model: ModelConfig
) -> ContractMapping:
    """What the source, its preset or the data set itself say of its columns, checked against the contract.

    Raises: ConfigError for an unknown preset; DataError where the data set does not fit it or the contract, both side
    by side.
    """
    said = _said(source, data, contract)
    place = source.place or (PLACE_COLUMN if PLACE_COLUMN in data.spec.columns else None)
    return ContractMapping(data.spec, source.path, said, place, contract, model)


def resolve_cameras(source: Source, data: EpisodeSource, contract: RobotContract, model: ModelConfig) -> dict[str, str]:
    """Contract camera -> published camera, for those the model looks at. Raises: DataError naming the nearest."""
    preset = _preset_of(source, data)
    known = data.spec.cameras
    named = (preset.cameras if preset else {}) | source.cameras
    for name in source.cameras:
        if name not in contract.cameras:
            raise ConfigError(
                f"{source.path}: cameras: '{name}' is not one of contract '{contract.name}'; "
                f"{nearest(name, contract.cameras)}"
            )
    found = {}
    for name in model.cameras:
        published = named.get(name) or next((n for n in (name, IMAGE_PREFIX + name) if n in known), name)
        if published not in known:
            raise DataError(
                f"{source.path}: no camera '{published}' for the contract's '{name}'; {nearest(published, known)}; "
                "name it in cameras"
            )
        found[name] = published
    return found


def rate_of(source: Source, data: EpisodeSource) -> float:
    """Frames a second. Raises: DataError where neither the data set nor its source says it."""
    preset = _preset_of(source, data)
    rate_hz = source.rate_hz or data.spec.rate_hz or (preset.rate_hz if preset else None)
    if rate_hz is None:
        raise DataError(f"{source.path}: the data set does not say how many frames a second it has; name it in rate_hz")
    return rate_hz


def _said(source: Source, data: EpisodeSource, contract: RobotContract) -> Preset:
    """The whole mapping: parts that the source names replace those of the preset, or of a recording of our own."""
    preset = _preset_of(source, data)
    if source.preset is None and data.spec.format == "calvin" and contract.action.kind is ActionKind.EE_POSE:
        preset = PRESETS["calvin_absolute"]  # its targets say more than its clipped differences
    if preset is None and source.actions is None:
        preset = _as_recorded(source, data, contract)
    base = preset or Preset(cameras={}, actions=source.actions, state=_state_as_recorded(data.spec.columns))
    return base.model_copy(
        update={key: value for key in ("actions", "state") if (value := getattr(source, key)) is not None}
    )


def _preset_of(source: Source, data: EpisodeSource) -> Preset | None:
    if source.preset is not None:
        if source.preset not in PRESETS:
            raise ConfigError(f"{source.path}: unknown preset '{source.preset}'; {nearest(source.preset, PRESETS)}")
        return PRESETS[source.preset]
    if data.spec.format == "calvin":
        return PRESETS["calvin"]
    if data.spec.format != "rlds":
        return None
    folder = data.root.resolve()
    names = {folder.name, folder.parent.name}  # of the version, of the data set
    return next((preset for preset in PRESETS.values() if names & set(preset.folders)), None)


def _as_recorded(source: Source, data: EpisodeSource, contract: RobotContract) -> Preset:
    """The mapping of a recording whose columns carry the contract's names. Raises: DataError with both side by side."""
    columns = data.spec.columns
    got = columns["action"].names if "action" in columns else None
    size = columns["action"].shape[-1] if "action" in columns and columns["action"].shape else 0
    expected = contract.action_names
    if got != expected:
        listed = (
            ", ".join(got)
            if got
            else f"{size} columns without names"
            if size
            else f"no 'action' among {', '.join(columns)}"
        )
        raise DataError(
            f"{source.path}: actions are {listed}; contract '{contract.name}' takes {', '.join(expected)}; "
            f"name a preset ({', '.join(PRESETS)}), or say in `actions` what the columns are"
        )
    _check_recorded_with(source, data.spec, contract)
    arm = f"action[0:{len(expected) - (contract.action.gripper is not None)}]"
    pose = {"position": "action[0:3]", "rotation": "action[3:6]"}
    joint_space = contract.action.kind is ActionKind.JOINT_POSITION
    actions = ActionMapping(
        kind=contract.action.kind,
        pose=None if joint_space else PoseColumns(**pose),
        joints=JointColumns(part=arm) if joint_space else None,
        gripper=GripperColumn(part="action[-1]") if contract.action.gripper else None,
    )
    return Preset(cameras={}, actions=actions, state=_state_as_recorded(columns))


def _state_as_recorded(columns: Mapping[str, Column]) -> StateMapping:
    pose = None
    if "observation.pose" in columns:
        pose = PoseColumns(
            position="observation.pose[0:3]", rotation="observation.pose[3:7]", rotation_as="quaternion_xyzw"
        )
    state = columns.get("observation.state")
    joints = {name: f"observation.state[{name}]" for name in state.names or ()} if state else {}
    return StateMapping(pose=pose, joints=joints)


def _check_recorded_with(source: Source, spec: SourceSpec, contract: RobotContract) -> None:
    """Hold the contract that a recording carries against the target's. Raises: DataError with both values."""
    expected = described(contract)
    for name, got in (spec.recorded_with or {}).items():
        if name in expected and got != expected[name]:
            raise DataError(
                f"{source.path}: {name}: the data was recorded with {got}, contract '{contract.name}' has "
                f"{expected[name]}; take the robot it was recorded with, or say in `actions` what its columns are"
            )


"""The published columns of an episode in, rows of the contract's actions and the model's state out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation_forms import quaternion_from, rotation_as, rotation_size
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import DataError, nearest
from vla_policy.model.config import ModelConfig
from vla_policy.observation.proprioception import proprioception, proprioception_names
from vla_policy.types import Observation, Pose
from vla_training.datasets import conversions
from vla_training.datasets.config import ActionMapping, JointColumns, PoseColumns, StateMapping
from vla_training.datasets.conversions import Array, Motion
from vla_training.datasets.parts import ColumnPart
from vla_training.datasets.presets import Preset
from vla_training.datasets.source import SourceSpec

GRIPPER_SLACK = 0.05  # of its range, that published gripper values may lie outside it


@dataclass(frozen=True, slots=True)
class MappedEpisode:
    """An episode in the contract's terms: actions (T, R, A), state (T, P), place (T, 3) [m] or None; float32."""

    actions: NDArray[np.float32]
    state: NDArray[np.float32]
    place: NDArray[np.float32] | None


class ContractMapping:
    """From one data set to one contract and model. Made by `resolve_mapping`; pickles."""

    def __init__(
        self, spec: SourceSpec, where: str, said: Preset, place: str | None, contract: RobotContract, model: ModelConfig
    ) -> None:
        """Raises: DataError where the data set lacks what the mapping names, or cannot become the contract's."""
        self._where, self._contract, self._model = where, contract, model
        self._actions, self._state = said.actions, said.state
        self._spec = spec
        self._place = self._part(place) if place else None
        self.key = _digest(said.actions, said.state, place, contract, model)
        self._check_kind()
        self._parts = {part.column for part in self._all_parts()}
        action = self._part(self._arm.position if isinstance(self._arm, PoseColumns) else self._arm.part)
        shape = spec.columns[action.column].shape
        self.rows_per_frame = shape[0] if len(shape) == 2 else 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The published columns that are read."""
        return tuple(sorted(self._parts))

    @property
    def state_size(self) -> int:
        """How many numbers the model's state vector has."""
        model = self._model
        return len(proprioception_names(self._contract, model.proprioception_joints)) if model.proprioception else 0

    @property
    def has_place(self) -> bool:
        """Whether the data says where the named thing is."""
        return self._place is not None

    def episode(self, columns: Mapping[str, NDArray[Any]], key: str) -> MappedEpisode:
        """Map the columns of the episode called `key`. Raises: DataError naming episode, frame and column."""
        self._check_finite(columns, key)
        pose = self._pose(columns) if self._needs_pose else None
        joints = self._joints(columns)
        arm = self._arm_rows(columns, pose, joints)
        gripper = self._gripper_rows(columns, key)
        actions = arm if gripper is None else np.concatenate([arm, gripper[..., None]], -1)
        place = None if self._place is None else self._place.take(columns, rows=False).astype(np.float32)
        return MappedEpisode(actions.astype(np.float32), self._felt(pose, joints, len(arm)), place)

    def observations(self, columns: Mapping[str, NDArray[Any]], key: str) -> list[Observation]:
        """What the robot would have told of itself at every frame: no images, stamp 0, NaN for joints that the model
        does not feel.

        Raises: DataError naming episode, frame and column.
        """
        self._check_finite(columns, key)
        frames = len(next(iter(columns.values())))
        return self._observed(self._pose(columns) if self._needs_pose else None, self._joints(columns), frames)

    @property
    def _arm(self) -> PoseColumns | JointColumns:
        return self._actions.pose or self._actions.joints

    @property
    def _needs_pose(self) -> bool:
        """Whether the measured pose enters the actions or the model's state."""
        mapping = self._actions
        changes_kind = mapping.kind is not self._contract.action.kind
        felt = self._model.proprioception and self._contract.pose is not None
        return changes_kind or felt or mapping.frame == "tool" or mapping.difference == "subtracted"

    def _part(self, text: str) -> ColumnPart:
        return ColumnPart.find(text, self._spec, self._where)

    def _all_parts(self) -> list[ColumnPart]:
        texts = list(self._state.joints.values()) if self._feels_joints else []
        for pose in (self._actions.pose, self._state.pose if self._needs_pose else None):
            texts += [pose.position, pose.rotation] if pose else []
        texts += [part.part for part in (self._actions.joints, self._actions.gripper) if part]
        return [self._part(text) for text in texts] + ([self._place] if self._place else [])

    @property
    def _feels_joints(self) -> bool:
        measured = self._actions.joints is not None and self._actions.joints.change
        return measured or (self._model.proprioception and bool(self._model.proprioception_joints))

    def _check_kind(self) -> None:
        """Raises: DataError with both values side by side where the data cannot become the contract's."""
        contract, mapping = self._contract, self._actions
        joint_space = ActionKind.JOINT_POSITION
        if (mapping.kind is joint_space) != (contract.action.kind is joint_space):
            raise DataError(
                f"{self._where}: its actions are {mapping.kind}, contract '{contract.name}' takes "
                f"{contract.action.kind}; neither follows from the other without the robot's kinematics"
            )
        if (mapping.gripper is None) != (contract.action.gripper is None):
            has = {True: "none", False: "one"}
            raise DataError(
                f"{self._where}: gripper column: the data has {has[mapping.gripper is None]}, contract "
                f"'{contract.name}' has {has[contract.action.gripper is None]}; name it in actions.gripper, or take "
                "another contract"
            )
        if self._needs_pose and self._state.pose is None:
            raise DataError(
                f"{self._where}: the tool pose is needed (by its actions or the model's state) and is not mapped; "
                "name it in state.pose, or set the model's proprioception false"
            )
        wanted = contract.action.joints if mapping.joints and mapping.joints.change else ()
        wanted += self._model.proprioception_joints if self._model.proprioception else ()
        for name in wanted:
            if name not in self._state.joints:
                raise DataError(
                    f"{self._where}: joint '{name}' of contract '{contract.name}' is not mapped; name its part in "
                    f"state.joints; {nearest(name, self._state.joints)}"
                )
        self._check_sizes()

    def _check_sizes(self) -> None:
        expected = []
        for pose in (self._actions.pose, self._state.pose):
            expected += [(pose.position, 3), (pose.rotation, rotation_size(pose.rotation_as))] if pose else []
        if self._actions.joints:
            expected.append((self._actions.joints.part, len(self._contract.action.joints)))
        if self._actions.gripper:
            expected.append((self._actions.gripper.part, 1))
        for text, size in expected:
            part = self._part(text)
            if len(part) != size:
                got = ", ".join(part.names or map(str, part.places))
                raise DataError(
                    f"{self._where}: '{text}' has {len(part)} values ({got}), expected {size}; the contract's columns "
                    f"are {', '.join(self._contract.action_names)}"
                )

    def _check_finite(self, columns: Mapping[str, NDArray[Any]], key: str) -> None:
        for name in self.columns:
            values = columns[name]
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                bad = tuple(np.argwhere(~np.isfinite(values))[0])
                raise DataError(
                    f"{key}: frame {bad[0]}: column '{name}' is {values[bad]}, expected a number; leave the "
                    "episode out by `episodes`, or repair the recording"
                )

    def _pose(self, columns: Mapping[str, NDArray[Any]]) -> Motion:
        position, rotation = _motion_numbers(self._state.pose, self._part, columns, rows=False)
        return position, quaternion_from(self._state.pose.rotation_as, rotation)

    def _joints(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        if not self._feels_joints:
            return {}
        unit = conversions.RADIANS[self._state.joint_unit]
        return {
            name: self._part(text).take(columns, rows=False)[:, 0] * unit for name, text in self._state.joints.items()
        }

    def _arm_rows(self, columns: Mapping[str, NDArray[Any]], pose: Motion | None, joints: dict[str, Array]) -> Array:
        """(T, R, arm columns) in the contract's kind and units."""
        mapping = self._actions
        if mapping.joints:
            values = self._part(mapping.joints.part).take(columns, rows=True) * conversions.RADIANS[mapping.joints.unit]
            if mapping.joints.change:
                start = np.stack([joints[name] for name in self._contract.action.joints], -1)
                values = start[:, None] + np.cumsum(values, 1)
            return values
        published = _motion_numbers(mapping.pose, self._part, columns, rows=True)
        rows = [_row(mapping, row, published) for row in range(published[0].shape[1])]
        told = mapping.kind is self._contract.action.kind and not self._needs_start
        if not told:
            rows = self._follow(rows, pose)
        return np.stack([np.concatenate([p, rotation_as("rotation_vector", q)], -1) for p, q in rows], 1)

    @property
    def _needs_start(self) -> bool:
        return self._actions.frame == "tool" or self._actions.difference == "subtracted"

    def _follow(self, rows: list[Motion], pose: Motion) -> list[Motion]:
        """Rows in the contract's kind, by following the tool from the measured pose through the rows of its frame."""
        mapping, here, out = self._actions, pose, []
        for row in rows:
            if mapping.kind is ActionKind.EE_POSE:
                target = row
            elif mapping.difference == "subtracted":
                form = mapping.pose.rotation_as
                angles = rotation_as(form, here[1]) + row[1]  # row[1] holds differences of angles
                target = here[0] + row[0], quaternion_from(form, angles)
            else:
                change = conversions.tool_to_base(row, here[1]) if mapping.frame == "tool" else row
                target = conversions.moved(here, change)
            wants_change = self._contract.action.kind is ActionKind.EE_DELTA
            out.append(conversions.change_between(here, target) if wants_change else target)
            here = target
        return out

    def _gripper_rows(self, columns: Mapping[str, NDArray[Any]], key: str) -> Array | None:
        """(T, R), 0 closed .. 1 open."""
        gripper = self._actions.gripper
        if gripper is None:
            return None
        values = self._part(gripper.part).take(columns, rows=True)[..., 0]
        if gripper.change:
            return conversions.gripper_from_changes(values.reshape(-1), gripper.closed_at, gripper.open_at).reshape(
                values.shape
            )
        fraction = conversions.gripper_fraction(values, gripper.closed_at, gripper.open_at)
        if len(fraction) and (fraction.min() < -GRIPPER_SLACK or fraction.max() > 1 + GRIPPER_SLACK):
            raise DataError(
                f"{key}: gripper '{gripper.part}' goes from {values.min():g} to {values.max():g}, the mapping says "
                f"{gripper.closed_at:g} is closed and {gripper.open_at:g} is open; correct closed_at and open_at"
            )
        return np.clip(fraction, 0.0, 1.0)

    def _felt(self, pose: Motion | None, joints: dict[str, Array], frames: int) -> NDArray[np.float32]:
        """The model's state vector of every frame, built by the function that serves the policy."""
        if not self._model.proprioception:
            return np.empty((frames, 0), np.float32)
        felt = [
            proprioception(self._contract, observation, self._model.proprioception_joints)
            for observation in self._observed(pose, joints, frames)
        ]
        return np.stack(felt)

    def _observed(self, pose: Motion | None, joints: dict[str, Array], frames: int) -> list[Observation]:
        table = np.stack([joints.get(name, np.full(frames, np.nan)) for name in self._contract.joints.names], -1)
        felt_pose = pose if self._contract.pose is not None else None
        return [
            Observation(0, {}, table[t], None if felt_pose is None else Pose(felt_pose[0][t], felt_pose[1][t]))
            for t in range(frames)
        ]


def described(contract: RobotContract) -> dict[str, str]:
    """What a recording tells of its contract, so that it is not taken for another's: kind, units, frames, rate."""
    return {
        "action kind": str(contract.action.kind),
        "action units": " ".join(contract.action_units),
        "base frame": contract.base_frame,
        "tool frame": contract.tool_frame,
        "action rate_hz": f"{contract.action.rate_hz:g}",
    }


def _motion_numbers(
    pose: PoseColumns, part: Any, columns: Mapping[str, NDArray[Any]], rows: bool
) -> tuple[Array, Array]:
    """Positions [m] and rotations in their published form, angles in rad."""
    angles = pose.rotation_as == "rotation_vector" or pose.rotation_as.startswith("euler")
    scale = pose.rotation_scale * conversions.RADIANS[pose.rotation_unit] if angles else 1.0
    metres = pose.position_scale * conversions.METRES[pose.position_unit]
    return part(pose.position).take(columns, rows) * metres, part(pose.rotation).take(columns, rows) * scale


def _row(mapping: ActionMapping, row: int, published: tuple[Array, Array]) -> Motion:
    position, rotation = published[0][:, row], published[1][:, row]
    if mapping.difference == "subtracted":
        return position, rotation
    return position, quaternion_from(mapping.pose.rotation_as, rotation)


def _digest(
    actions: ActionMapping, state: StateMapping, place: str | None, contract: RobotContract, model: ModelConfig
) -> str:
    """Changes with whatever changes the mapped numbers."""
    described_by = [
        actions.model_dump(mode="json"),
        state.model_dump(mode="json"),
        place,
        described(contract),
        contract.action_names,
        contract.pose is not None,
        model.proprioception,
        model.proprioception_joints,
    ]
    return hashlib.sha256(json.dumps(described_by).encode()).hexdigest()

"""Action rows of a contract in, the rows that another program means by them out, and back.

vla-eval's programs declare their formats in the hello message (`action_spec`). Positions and rotations may be scaled,
as CALVIN's relative actions are: a value of 1 there is 0.02 m or 0.05 rad.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vla_policy.action.rotation_forms import quaternion_from, rotation_as, rotation_size
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import RemoteError
from vla_policy.strict import StrictModel

Rows = NDArray[np.float64]
RotationFormat = Literal["axis_angle", "euler_xyz", "quaternion_xyzw"]
GripperFormat = Literal["continuous_01", "binary_close_01", "binary_close_positive", "binary_close_negative"]
ROTATIONS = {
    "axis_angle": "rotation_vector",
    "euler_xyz": "euler_xyz",
    "quaternion_xyzw": "quaternion_xyzw",
}  # theirs: ours
POSITION_KINDS = {"delta_xyz": ActionKind.EE_DELTA, "absolute_xyz": ActionKind.EE_POSE}
# Ours is 0 closed .. 1 open: ours = offset + gain * theirs.
GRIPPERS: dict[str, tuple[float, float]] = {
    "continuous_01": (0.0, 1.0),
    "binary_close_01": (1.0, -1.0),
    "binary_close_positive": (0.5, -0.5),
    "binary_close_negative": (0.5, 0.5),
}


class Convention(StrictModel):
    """How another program writes an action row: position (3), rotation (3 or 4), gripper (1).

    position_scale_m, rotation_scale_rad: what a value of 1 means. gripper: continuous_01 is 0 closed .. 1 open.
    """

    rotation: RotationFormat = "axis_angle"
    gripper: GripperFormat = "continuous_01"
    position_scale_m: Annotated[float, Field(gt=0)] = 1.0
    rotation_scale_rad: Annotated[float, Field(gt=0)] = 1.0

    def with_spec(self, spec: Mapping[str, Any], contract: RobotContract) -> Convention:
        """The formats that a server declares, where it does. Raises: RemoteError for what cannot be converted."""
        found: dict[str, str] = {}
        for part, known in (("rotation", ROTATIONS), ("gripper", GRIPPERS)):
            format_ = _format(spec, part)
            if format_ is None or format_ == "raw":
                continue
            if format_ not in known:
                raise RemoteError(f"action_spec.{part}: got '{format_}', expected one of {', '.join(known)}")
            found[part] = format_
        position = _format(spec, "position")
        kind = contract.action.kind
        if position in POSITION_KINDS and POSITION_KINDS[position] is not kind:
            raise RemoteError(
                f"action_spec.position: got '{position}', but contract {contract.name} takes '{kind}'; use a contract "
                "with the other action kind"
            )
        return self.model_copy(update=found)

    def to_contract(self, rows: Rows, contract: RobotContract) -> Rows:
        """Their rows (K, A') -> contract rows (K, A). Raises: RemoteError for the wrong number of columns."""
        if contract.action.kind is ActionKind.JOINT_POSITION:
            return _checked(rows, len(contract.action_names), contract)
        turns = rotation_size(ROTATIONS[self.rotation])
        _checked(rows, 3 + turns + (contract.action.gripper is not None), contract)
        parts = [rows[:, :3] * self.position_scale_m, self._rotation_vectors(rows[:, 3 : 3 + turns])]
        if contract.action.gripper:
            offset, gain = GRIPPERS[self.gripper]
            parts.append(np.clip(offset + gain * rows[:, -1:], 0.0, 1.0))
        return np.concatenate(parts, axis=1)

    def from_contract(self, rows: Rows, contract: RobotContract) -> Rows:
        """Contract rows (K, A) -> their rows (K, A')."""
        if contract.action.kind is ActionKind.JOINT_POSITION:
            return rows
        parts = [rows[:, :3] / self.position_scale_m, self._their_rotations(rows[:, 3:6])]
        if contract.action.gripper:
            offset, gain = GRIPPERS[self.gripper]
            parts.append((rows[:, 6:7] - offset) / gain)
        return np.concatenate(parts, axis=1)

    def spec(self, contract: RobotContract) -> dict[str, dict[str, Any]]:
        """What a server declares of its actions."""
        if contract.action.kind is ActionKind.JOINT_POSITION:
            return {"joints": {"name": "joints", "dims": len(contract.action_names), "format": "joint_positions"}}
        position = next(name for name, kind in POSITION_KINDS.items() if kind is contract.action.kind)
        spec = {
            "position": {"name": "position", "dims": 3, "format": position},
            "rotation": {"name": "rotation", "dims": rotation_size(ROTATIONS[self.rotation]), "format": self.rotation},
        }
        if contract.action.gripper:
            spec["gripper"] = {"name": "gripper", "dims": 1, "format": self.gripper}
        return spec

    def _rotation_vectors(self, turns: Rows) -> Rows:
        return rotation_as("rotation_vector", quaternion_from(ROTATIONS[self.rotation], turns * self._turn_scale))

    def _their_rotations(self, vectors: Rows) -> Rows:
        return rotation_as(ROTATIONS[self.rotation], quaternion_from("rotation_vector", vectors)) / self._turn_scale

    @property
    def _turn_scale(self) -> float:
        return 1.0 if self.rotation == "quaternion_xyzw" else self.rotation_scale_rad


def _format(spec: Mapping[str, Any], part: str) -> str | None:
    declared = spec.get(part)
    return str(declared.get("format")) if isinstance(declared, Mapping) else None


def _checked(rows: Rows, columns: int, contract: RobotContract) -> Rows:
    if rows.ndim != 2 or rows.shape[1] != columns or not len(rows):
        raise RemoteError(
            f"actions: got shape {rows.shape}, expected (rows, {columns}) for contract {contract.name}; "
            "see its action kind and the convention's rotation format"
        )
    return rows

"""The `datasets` and `augmentation` parts of a training file in, validated and frozen settings out."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vla_policy.contract import ActionKind
from vla_policy.strict import StrictModel

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Frames = Annotated[int, Field(ge=0)]

_PART = re.compile(r"[^\[\]]+(\[[^\[\]]+\])?")
RotationForm = Literal[
    "rotation_vector",
    "quaternion_xyzw",
    "quaternion_wxyz",
    "matrix",
    "matrix_columns",
    "euler_xyz",
    "euler_xzy",
    "euler_yxz",
    "euler_yzx",
    "euler_zxy",
    "euler_zyx",
    "euler_XYZ",
    "euler_XZY",
    "euler_YXZ",
    "euler_YZX",
    "euler_ZXY",
    "euler_ZYX",
]


def _part(text: str) -> str:
    if not _PART.fullmatch(text):
        raise ValueError(
            f"got '{text}', expected a column and, where it is a part of it, which: 'action', 'action[6]', "
            "'action[0:3]' or 'action[x, y, z]'"
        )
    return text


Part = Annotated[str, AfterValidator(_part)]


class PoseColumns(StrictModel):
    """Where a pose, or a change of pose, lies in a data set, and how it was written.

    position, rotation: parts of published columns. rotation_as: `matrix` is 9 numbers row by row, `matrix_columns`
    its first two columns; small euler letters turn about fixed axes, capital ones about the moving axes, in the order
    written.
    position_scale, rotation_scale: one published unit in `position_unit` or `rotation_unit`.
    """

    position: Part
    rotation: Part
    rotation_as: RotationForm = "rotation_vector"
    position_unit: Literal["m", "cm", "mm"] = "m"
    rotation_unit: Literal["rad", "deg"] = "rad"
    position_scale: Positive = 1.0
    rotation_scale: Positive = 1.0


class GripperColumn(StrictModel):
    """Where the gripper's command lies, and which published values mean closed and open.

    change: the values ask for a change (the one for closed, the one for open, or neither) and hold until the next.
    """

    part: Part
    closed_at: float = 0.0
    open_at: float = 1.0
    change: bool = False

    @model_validator(mode="after")
    def _two_positions(self) -> GripperColumn:
        if self.closed_at == self.open_at:
            raise ValueError(f"closed_at and open_at are both {self.open_at}, expected two values")
        return self


class JointColumns(StrictModel):
    """Where joint values lie, in the order of the contract's `action.joints`. change: they are added to the measured
    ones.
    """

    part: Part
    unit: Literal["rad", "deg"] = "rad"
    change: bool = False


class ActionMapping(StrictModel):
    """How the published actions become rows of the contract.

    kind: what they are. pose: for ee_delta and ee_pose; joints: for joint_position.
    frame: of an ee_delta, `base`, or `tool` (of the tool as it stands before the row).
    difference: how an ee_delta's rotation was made: `turned` (a rotation after the pose's) or `subtracted` (angles of
    the target less angles of the pose, each about its own axis, as CALVIN does).
    """

    kind: ActionKind
    pose: PoseColumns | None = None
    joints: JointColumns | None = None
    gripper: GripperColumn | None = None
    frame: Literal["base", "tool"] = "base"
    difference: Literal["turned", "subtracted"] = "turned"

    @model_validator(mode="after")
    def _complete(self) -> ActionMapping:
        joint_space = self.kind is ActionKind.JOINT_POSITION
        wanted, other = ("joints", "pose") if joint_space else ("pose", "joints")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise ValueError(f"kind {self.kind} takes '{wanted}' and no '{other}'")
        if self.kind is not ActionKind.EE_DELTA and (self.frame, self.difference) != ("base", "turned"):
            raise ValueError(f"kind {self.kind} takes neither frame nor difference; they are for ee_delta")
        if self.difference == "subtracted" and not self.pose.rotation_as.startswith("euler"):
            raise ValueError(f"difference subtracted: got rotation_as {self.pose.rotation_as}, expected euler angles")
        return self


class StateMapping(StrictModel):
    """Where the tool pose (base frame) and the joints lie. joints: contract joint -> its part."""

    pose: PoseColumns | None = None
    joints: dict[str, Part] = {}
    joint_unit: Literal["rad", "deg"] = "rad"


class Source(StrictModel):
    """A data set on disk, and how it becomes the contract's. A LeRobot folder recorded here needs only `path`.

    format: found out where it is left out. tasks: those to use, all where none are named. episodes: [first, last + 1]
    to use.
    weight: how often one of its frames is drawn, next to a frame of a source of weight 1.
    preset: a mapping known by name (`vla_training.datasets.mapping.PRESETS`); `actions`, `state`, `cameras` say it in
    full or replace parts of it. cameras: contract camera -> published camera. place: column with the position [m,
    base frame] of what is named.
    normalize: `target` by the statistics of the run, `own` by this source's, for another robot's data.
    rate_hz: frames a second, where the data set does not say it or says it wrongly.
    resample: allow a rate that differs from the contract's; rows are then joined or split so that the motion stays
    the same.
    paraphrases: YAML file, sentence -> sentences that mean the same; each window draws one.
    """

    path: str
    format: str | None = None
    tasks: tuple[str, ...] = ()
    episodes: tuple[Frames, Frames] | None = None
    weight: Positive = 1.0
    preset: str | None = None
    cameras: dict[str, str] = {}
    actions: ActionMapping | None = None
    state: StateMapping | None = None
    place: Part | None = None
    normalize: Literal["target", "own"] = "target"
    resample: bool = False
    rate_hz: Positive | None = None
    paraphrases: str | None = None

    @model_validator(mode="after")
    def _episodes_grow(self) -> Source:
        if self.episodes and not self.episodes[0] < self.episodes[1]:
            raise ValueError(f"episodes: got {list(self.episodes)}, expected [first, last + 1]")
        return self


class CameraAugmentation(StrictModel):
    """What may happen to the images of one camera; each value is drawn between minus and plus it.

    shift_px: moved, edges repeat [px of the model's image]. crop: the share of the side that may be cut off, the rest
    enlarged.
    brightness, contrast, saturation: factors 1 ± it. hue: share of the colour circle.
    """

    shift_px: Annotated[int, Field(ge=0, le=64)] = 2
    crop: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    brightness: Share = 0.1
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class Augmentation(CameraAugmentation):
    """Drawn once per window and camera, so that the frames of a window stay consistent.

    cameras: contract camera -> its own settings, in place of the shared ones.
    """

    cameras: dict[str, CameraAugmentation] = {}

    def of(self, camera: str) -> CameraAugmentation:
        """What holds for a camera."""
        return self.cameras.get(camera, self)

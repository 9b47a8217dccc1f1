"""A preset's name in, the mapping of a published data set out: what its documentation says of its columns.

calvin: https://github.com/mees/calvin, dataset/README.md; rel_actions are in [-1, 1] with 1 = 20 mm and 0.05 rad,
differences of Euler angles in world coordinates. bridge, rt1: https://github.com/google-deepmind/open_x_embodiment
and the data sets' features.json.
"""

from __future__ import annotations

from typing import Any

from vla_policy.strict import StrictModel
from vla_training.datasets.config import ActionMapping, StateMapping


class Preset(StrictModel):
    """What a mapping says. rate_hz: where the data set does not say it. folders: names of folders that are this data
    set.
    """

    cameras: dict[str, str]
    actions: ActionMapping
    state: StateMapping = StateMapping()
    rate_hz: float | None = None
    folders: tuple[str, ...] = ()


def _preset(**data: Any) -> Preset:
    return Preset.model_validate(data)


CALVIN_POSE = {"position": "robot_obs[0:3]", "rotation": "robot_obs[3:6]", "rotation_as": "euler_xyz"}
CALVIN = {
    "cameras": {"static": "rgb_static", "wrist": "rgb_gripper"},
    "state": {
        "pose": CALVIN_POSE,
        "joints": {f"panda_joint{n}": f"robot_obs[{6 + n}]" for n in range(1, 8)}
        | {"panda_finger_joint1": "robot_obs[6]"},
    },
    "rate_hz": 30.0,
}
BRIDGE_STATE = {
    "pose": {"position": "observation/state[0:3]", "rotation": "observation/state[3:6]", "rotation_as": "euler_xyz"}
}
CALVIN_GRIPPER = {"closed_at": -1.0, "open_at": 1.0}
PRESETS = {
    "calvin": _preset(
        **CALVIN,
        actions={
            "kind": "ee_delta",
            "difference": "subtracted",
            "gripper": CALVIN_GRIPPER | {"part": "rel_actions[6]"},
            "pose": {
                "position": "rel_actions[0:3]",
                "rotation": "rel_actions[3:6]",
                "rotation_as": "euler_xyz",
                "position_scale": 0.02,
                "rotation_scale": 0.05,
            },
        },
    ),
    "calvin_absolute": _preset(
        **CALVIN,
        actions={
            "kind": "ee_pose",
            "gripper": CALVIN_GRIPPER | {"part": "actions[6]"},
            "pose": {"position": "actions[0:3]", "rotation": "actions[3:6]", "rotation_as": "euler_xyz"},
        },
    ),
    "bridge": _preset(
        cameras={"static": "observation/image_0"},
        rate_hz=5.0,
        folders=("bridge", "bridge_dataset", "bridge_orig"),
        state=BRIDGE_STATE,
        actions={
            "kind": "ee_delta",
            "gripper": {"part": "action[6]"},
            "pose": {"position": "action[0:3]", "rotation": "action[3:6]", "rotation_as": "euler_xyz"},
        },
    ),
    "bridge_oxe": _preset(
        cameras={"static": "observation/image"},
        rate_hz=5.0,
        folders=("bridge_oxe",),
        state=BRIDGE_STATE,
        actions={
            "kind": "ee_delta",
            "gripper": {"part": "action/open_gripper"},
            "pose": {
                "position": "action/world_vector",
                "rotation": "action/rotation_delta",
                "rotation_as": "euler_xyz",
            },
        },
    ),
    "rt1": _preset(
        cameras={"static": "observation/image"},
        rate_hz=3.0,
        folders=("fractal20220817_data", "rt_1", "rt1"),
        state={
            "pose": {
                "position": "observation/base_pose_tool_reached[0:3]",
                "rotation": "observation/base_pose_tool_reached[3:7]",
                "rotation_as": "quaternion_xyzw",
            }
        },
        actions={
            "kind": "ee_delta",
            "gripper": {"part": "action/gripper_closedness_action", "closed_at": 1.0, "open_at": -1.0, "change": True},
            "pose": {"position": "action/world_vector", "rotation": "action/rotation_delta"},
        },
    ),
}

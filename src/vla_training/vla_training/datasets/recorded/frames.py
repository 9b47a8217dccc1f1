"""An episode's frames in a contract's terms in, the messages that a recorder would have heard out; no ROS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_policy.action.rotation import quaternion_from_rotvec
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import DataError
from vla_policy.messages import chunk_frame
from vla_policy.observation.buffer import JOINTS, POSE, camera_channel
from vla_policy.observation.streams import message_types
from vla_policy.recording import COMMAND_TOPIC, COMMAND_TYPE, INTERVENTION_TOPIC, INTERVENTION_TYPE
from vla_policy.types import NS_PER_S, Observation, Pose
from vla_training.datasets.recorded.messages import make, time

START_NS = NS_PER_S  # of an episode's clock; ROS keeps 0 for "no time"
JPEG_QUALITY = 95  # where the contract's camera is compressed
Timed = tuple[int, str, str, Any]  # received [ns], topic, type, message


@dataclass(frozen=True, slots=True)
class EpisodeFrames:
    """One episode. rows: float64 (T * R, A), the contract's actions, R of them a frame. observations: T of them,
    without images. held: (T,) bool, frames whose observation never came. interventions: (T,) bool, an operator drives.
    """

    rows: NDArray[np.float64]
    observations: Sequence[Observation]
    held: NDArray[np.bool_]
    interventions: NDArray[np.bool_]

    @property
    def rows_per_frame(self) -> int:
        """R."""
        return len(self.rows) // len(self.observations)


def stop_ns(frames: EpisodeFrames, contract: RobotContract) -> int:
    """When the episode's last row is over [ns]."""
    return START_NS + len(frames.rows) * contract.action_dt_ns


def state_messages(frames: EpisodeFrames, contract: RobotContract, frame: int) -> Iterator[Timed]:
    """What a frame adds beside images: who drives, where it changed, and joints and pose unless the frame is held."""
    stamp_ns = START_NS + frame * frames.rows_per_frame * contract.action_dt_ns
    before = frame > 0 and frames.interventions[frame - 1]
    if frames.interventions[frame] != before:
        msg = make(INTERVENTION_TYPE, data=bool(frames.interventions[frame]))
        yield stamp_ns, INTERVENTION_TOPIC, INTERVENTION_TYPE, msg
    if frame and frames.held[frame]:
        return
    seen, channels = frames.observations[frame], message_types(contract)
    topic, kind = channels[JOINTS]
    names = list(contract.joints.names)
    yield stamp_ns, topic, kind, make(kind, stamp_ns=stamp_ns, name=names, position=np.asarray(seen.joints, np.float64),
                                      velocity=np.zeros(0), effort=np.zeros(0))
    if contract.pose is not None:
        topic, kind = channels[POSE]
        yield stamp_ns, topic, kind, make(kind, stamp_ns=stamp_ns, frame_id=contract.base_frame, pose=_pose(seen.pose))


def image_message(frames: EpisodeFrames, contract: RobotContract, frame: int, camera: str,
                  image: NDArray[np.uint8]) -> Timed:
    """A camera's message of a frame. image: uint8 (H, W, 3), RGB. Raises: DataError for another size or encoding."""
    stream = contract.cameras[camera]
    topic, kind = message_types(contract)[camera_channel(camera)]
    height, width = image.shape[:2]
    if (height, width) != (stream.height, stream.width):
        raise DataError(f"camera '{camera}': got images of {width}x{height}, expected {stream.width}x{stream.height} "
                        f"by contract '{contract.name}'; take the contract that they were recorded with")
    stamp_ns = START_NS + frame * frames.rows_per_frame * contract.action_dt_ns
    head = {"stamp_ns": stamp_ns, "frame_id": f"camera_{camera}"}
    if stream.compressed:
        data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].ravel()
        return stamp_ns, topic, kind, make(kind, format="jpeg", data=data, **head)
    pixels, step = image, 3 * width
    if stream.encoding == "bgr8":
        pixels = image[..., ::-1]
    elif stream.encoding != "rgb8":
        raise DataError(f"camera '{camera}': got encoding {stream.encoding} in contract '{contract.name}', expected "
                        "rgb8, bgr8 or a compressed stream; other encodings are not written")
    return stamp_ns, topic, kind, make(kind, height=height, width=width, encoding=stream.encoding, is_bigendian=0,
                                       step=step, data=np.ascontiguousarray(pixels).ravel(), **head)


def command_messages(frames: EpisodeFrames, contract: RobotContract, frame: int) -> Iterator[Timed]:
    """The commands of a frame's rows, at the contract's control rate."""
    rows, dt_ns = frames.rows_per_frame, contract.action_dt_ns
    names, units = list(contract.command_names), list(contract.command_units)
    for row in range(frame * rows, (frame + 1) * rows):
        values = _command_values(frames.rows[row], contract)
        for part in range(max(1, round(dt_ns / contract.control_dt_ns))):
            stamp_ns = START_NS + row * dt_ns + part * contract.control_dt_ns
            observed_ns = START_NS + frame * rows * dt_ns
            yield stamp_ns, COMMAND_TOPIC, COMMAND_TYPE, make(
                COMMAND_TYPE, stamp_ns=stamp_ns, frame_id=chunk_frame(contract), run_id=1,
                observation_stamp=time(observed_ns), row=row - frame * rows, names=names, units=units, values=values)


def _command_values(row: NDArray[np.float64], contract: RobotContract) -> NDArray[np.float64]:
    """A row of actions as the command that does it: a change within a row's time becomes the velocity."""
    arm_size = len(contract.action_names) - (contract.action.gripper is not None)
    arm, gripper = row[:arm_size], row[arm_size:]
    if contract.action.kind is ActionKind.EE_DELTA:
        arm = arm * (NS_PER_S / contract.action_dt_ns)
    elif contract.action.kind is ActionKind.EE_POSE:
        arm = np.concatenate([arm[:3], quaternion_from_rotvec(arm[3:])])
    return np.concatenate([arm, gripper])


def _pose(pose: Pose) -> Any:
    x, y, z = (float(value) for value in pose.position)
    qx, qy, qz, qw = (float(value) for value in pose.quaternion)
    return make("geometry_msgs/msg/Pose", position=make("geometry_msgs/msg/Point", x=x, y=y, z=z),
                orientation=make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw))

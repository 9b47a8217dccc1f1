"""A contract and a motion in, a recorded episode out: a small real bag as the recorder leaves it.

`python make_bags.py FOLDER --episodes 4 --seconds 10 --size 224` writes a set of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from vla_policy.contract import RobotContract, load_contract
from vla_policy.observation.buffer import JOINTS, camera_channel
from vla_policy.observation.streams import message_types
from vla_policy.recording import (
    COMMAND_TOPIC,
    COMMAND_TYPE,
    INTERVENTION_TOPIC,
    INTERVENTION_TYPE,
    EpisodeRecord,
    TopicRecord,
    contract_hash,
    write_episode,
)
from vla_policy.types import NS_PER_S
from vla_training.datasets.recorded.messages import make, time, types

ROOT = Path(__file__).resolve().parents[2]
START_NS = 5 * NS_PER_S
Message = tuple[int, str, Any]  # receive time [ns], topic, message


def picture(number: int, height: int, width: int) -> np.ndarray:
    """An RGB image that shows its number: red its low byte, green its high byte."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = number % 256, number // 256
    image[..., 2] = np.linspace(0, 255, width).astype(np.uint8)
    return image


def twist(second: float) -> np.ndarray:
    """A motion: tool velocity (6,) at a time of the episode [m/s, rad/s]."""
    return np.array([0.05 * np.sin(second), 0.03, -0.02 * np.cos(second), 0.0, 0.1, -0.1])


@dataclass(frozen=True)
class Motion:
    """What is recorded. seconds: of the episode. rates [Hz]; phases: how long after the start a stream begins [s].

    delay_s: from stamp to arrival. jitter_s: of stamps, at most; `seed` draws it.
    """

    seconds: float = 2.0
    camera_hz: float = 20.0
    state_hz: float = 20.0
    camera_phase_s: float = 0.0
    command_phase_s: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    seed: int = 0


def messages(contract: RobotContract, motion: Motion) -> Iterator[Message]:
    """All messages of an episode, in no order."""
    rng = np.random.default_rng(motion.seed)
    for channel, (topic, kind) in message_types(contract).items():
        is_camera = channel.startswith(camera_channel(""))
        rate, phase_s = (motion.camera_hz, motion.camera_phase_s) if is_camera else (motion.state_hz, 0.0)
        for number, stamp_ns in enumerate(_stamps(rate, phase_s, motion, rng)):
            received_ns = stamp_ns + round(motion.delay_s * NS_PER_S)
            yield received_ns, topic, _observed(contract, channel, kind, number, stamp_ns)
    for number, stamp_ns in enumerate(_stamps(contract.control_rate_hz, motion.command_phase_s, motion, rng)):
        yield stamp_ns, COMMAND_TOPIC, command(contract, stamp_ns, number)


def _stamps(rate_hz: float, phase_s: float, motion: Motion, rng: np.random.Generator) -> list[int]:
    seconds = phase_s + np.arange(round(motion.seconds * rate_hz)) / rate_hz
    seconds += rng.uniform(0, motion.jitter_s, len(seconds))
    return [START_NS + round(second * NS_PER_S) for second in seconds]


def _observed(contract: RobotContract, channel: str, kind: str, number: int, stamp_ns: int) -> Any:
    if channel == JOINTS:
        count = len(contract.joints.names)
        position = np.ascontiguousarray((np.arange(count, dtype=np.float64) + number)[::-1])
        return make(kind, stamp_ns=stamp_ns, name=list(contract.joints.names)[::-1], position=position,
                    velocity=np.zeros(0), effort=np.zeros(0))
    if channel.startswith(camera_channel("")):
        camera = contract.cameras[channel.removeprefix(camera_channel(""))]
        image = picture(number, camera.height, camera.width)
        if camera.compressed:
            data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel()
            return make(kind, stamp_ns=stamp_ns, format="jpeg", data=data)
        return make(kind, stamp_ns=stamp_ns, height=camera.height, width=camera.width, encoding="rgb8", is_bigendian=0,
                    step=3 * camera.width, data=image.ravel())
    position = make("geometry_msgs/msg/Point", x=0.4 + 0.001 * number, y=0.0, z=0.2)
    orientation = make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    pose = make("geometry_msgs/msg/Pose", position=position, orientation=orientation)
    return make(kind, stamp_ns=stamp_ns, frame_id=contract.base_frame, pose=pose)


def command(contract: RobotContract, stamp_ns: int, number: int) -> Any:
    """The guard's command of an ee_delta contract: `twist`, and a gripper that closes after half a second."""
    second = (stamp_ns - START_NS) / NS_PER_S
    values = np.append(twist(second), float(second < 0.5))
    return make(COMMAND_TYPE, stamp_ns=stamp_ns, frame_id=contract.base_frame, run_id=7,
                observation_stamp=time(stamp_ns), row=number % 4,
                names=list(contract.command_names), units=list(contract.command_units), values=values)


def record_of(contract: RobotContract, seconds: float = 2.0, **changes: Any) -> EpisodeRecord:
    """What the recorder tells of an episode."""
    fields = {"contract": contract, "contract_hash": contract_hash(contract), "instruction": "push the button",
              "operator": "someone", "outcome": "success", "task": "press_button", "seed": 3, "start_ns": START_NS,
              "stop_ns": START_NS + round(seconds * NS_PER_S),
              "topics": {COMMAND_TOPIC: TopicRecord(type=COMMAND_TYPE, messages=40, rate_hz=20.0, dropped=1)}}
    return EpisodeRecord(**fields | changes)


def write_bag(folder: Path, sent: list[Message], record: EpisodeRecord | None, zstd: bool = False) -> Path:
    """A rosbag2 folder with the messages in the order given, and the record, if any. Returns the MCAP file."""
    kinds = {topic: msg.__msgtype__ for _, topic, msg in sent}
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    if zstd:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {topic: writer.add_connection(topic, kind, typestore=types()) for topic, kind in kinds.items()}
        for received_ns, topic, msg in sent:
            writer.write(connections[topic], received_ns, types().serialize_cdr(msg, kinds[topic]))
    if record is not None:
        write_episode(folder, record)
    return folder / f"{folder.name}.mcap"


def record_episode(folder: Path, contract: RobotContract, motion: Motion | None = None,
                   change: Callable[[list[Message]], list[Message]] = lambda sent: sent, **record: Any) -> Path:
    """A whole episode; `change` may alter its messages, which come in order of arrival. Returns the MCAP file."""
    motion = motion or Motion()
    sent = change(sorted(messages(contract, motion), key=lambda message: message[0]))
    return write_bag(folder, sent, record_of(contract, motion.seconds, **record))


def intervention(received_ns: int, driving: bool) -> Message:
    """An operator takes over, or hands back."""
    return received_ns, INTERVENTION_TOPIC, make(INTERVENTION_TYPE, data=driving)


def tabletop(size: int = 224, compressed: bool = False) -> RobotContract:
    """The tabletop's contract with cameras of another size."""
    contract = load_contract(ROOT / "config/robots/tabletop.yaml")
    changes = {"width": size, "height": size, "compressed": compressed}
    cameras = {name: camera.model_copy(update=changes) for name, camera in contract.cameras.items()}
    return contract.model_copy(update={"cameras": cameras})


def main() -> None:
    """Write a set of episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--compressed", action="store_true", help="JPEG images instead of raw ones")
    options = parser.parse_args()
    contract = tabletop(options.size, options.compressed)
    for number in range(options.episodes):
        motion = Motion(options.seconds, camera_hz=30, state_hz=100, delay_s=0.004, jitter_s=0.002, seed=number)
        record_episode(options.folder / f"episode_{number:04d}", contract, motion)


if __name__ == "__main__":
    main()

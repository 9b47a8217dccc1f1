"""A contract in, the topics of an episode out: what is recorded, and what must be alive before one begins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vla_policy.contract import RobotContract
from vla_policy.observation.buffer import JOINTS, POSE, camera_channel
from vla_policy.observation.streams import COMPRESSED_IMAGE, IMAGE, message_types
from vla_policy.recording import COMMAND_TOPIC, COMMAND_TYPE, INTERVENTION_TOPIC, INTERVENTION_TYPE

CLOCK_TOPIC, CLOCK_TYPE = "/clock", "rosgraph_msgs/msg/Clock"
CHUNK_TOPIC, CHUNK_TYPE = "/vla/action_chunk", "vla_msgs/msg/ActionChunk"
SCENE_TOPIC, SCENE_TYPE = "/vla/episode", "vla_msgs/msg/EpisodeEvent"


class Need(Enum):
    """What a topic must be before an episode begins. ALIVE: messages come. OFFERED: somebody publishes it."""

    ALIVE = "alive"
    OFFERED = "offered"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RecordedTopic:
    """A topic that an episode holds.

    type: of its messages; empty: whatever its publisher says. max_age_s: of an observation, by the contract.
    is_state: its newest message stands until the next, so that an episode begins with it.
    """

    name: str
    type: str
    need: Need = Need.NONE
    max_age_s: float | None = None
    is_state: bool = False

    @property
    def is_image(self) -> bool:
        """Whether its messages are large."""
        return self.type in (IMAGE, COMPRESSED_IMAGE)


def recorded_topics(contract: RobotContract, with_clock: bool, extra: tuple[str, ...] = ()) -> list[RecordedTopic]:
    """All topics of an episode. with_clock: time is simulated. extra: names of further ones, of any type."""
    ages = {camera_channel(name): camera.max_age_s for name, camera in contract.cameras.items()}
    ages[JOINTS] = contract.joints.max_age_s
    if contract.pose is not None:
        ages[POSE] = contract.pose.max_age_s
    topics = [RecordedTopic(topic, kind, Need.ALIVE, ages[channel])
              for channel, (topic, kind) in message_types(contract).items()]
    commands = (contract.action.command, contract.action.gripper)
    topics += [RecordedTopic(command.topic, command.type) for command in commands if command is not None]
    topics += [
        RecordedTopic(COMMAND_TOPIC, COMMAND_TYPE, Need.OFFERED),
        RecordedTopic("/vla/command_raw", COMMAND_TYPE),
        RecordedTopic(CHUNK_TOPIC, CHUNK_TYPE),
        RecordedTopic("/vla/teleop/action_chunk", CHUNK_TYPE),
        RecordedTopic("/vla/status", "vla_msgs/msg/PolicyStatus", is_state=True),
        RecordedTopic("/vla/safety", "vla_msgs/msg/SafetyStatus", is_state=True),
        RecordedTopic(SCENE_TOPIC, SCENE_TYPE, is_state=True),
        RecordedTopic("/vla/teleop/status", "vla_msgs/msg/TeleopStatus", is_state=True),
        RecordedTopic(INTERVENTION_TOPIC, INTERVENTION_TYPE, is_state=True),
    ]
    if with_clock:
        topics.append(RecordedTopic(CLOCK_TOPIC, CLOCK_TYPE, Need.ALIVE))
    known = {topic.name for topic in topics}
    return topics + [RecordedTopic(name, "") for name in dict.fromkeys(extra) if name not in known]

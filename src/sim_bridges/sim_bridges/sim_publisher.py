"""Observations in, the robot's own topics out, as its drivers would publish them."""

from __future__ import annotations

from array import array

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout
from vla_msgs.msg import EpisodeEvent

from sim_bridges.sim import Episode
from vla_policy.contract import RobotContract
from vla_policy.types import Observation
from vla_policy_node.messages import array_to_image, array_to_joint_state, make_header, ns_to_stamp, pose_to_msg
from vla_policy_node.pace import LATCHED, LATEST_ONLY, RELIABLE

STATE_TOPIC = "/sim/state"


def scene_label(task: str, seed: int) -> str:
    """How a message on STATE_TOPIC names its scene."""
    return f"{task} {seed}"


class SimPublisher:
    """Publishers for a contract's cameras, joints and pose, for /vla/episode and, if wanted, for /clock and /sim/state.
    """

    def __init__(self, node: Node, contract: RobotContract, with_clock: bool, with_state: bool = False) -> None:
        self._contract = contract
        self._images = {name: node.create_publisher(Image, camera.topic, RELIABLE)
                        for name, camera in contract.cameras.items()}
        self._joints = node.create_publisher(JointState, contract.joints.topic, RELIABLE)
        self._pose = node.create_publisher(PoseStamped, contract.pose.topic, RELIABLE) if contract.pose else None
        self._episode = node.create_publisher(EpisodeEvent, "/vla/episode", LATCHED)
        self._clock = node.create_publisher(Clock, "/clock", RELIABLE) if with_clock else None
        self._state = node.create_publisher(Float64MultiArray, STATE_TOPIC, LATEST_ONLY) if with_state else None

    @property
    def tells_state(self) -> bool:
        """Whether `publish_state` is wanted."""
        return self._state is not None

    def publish_state(self, state: NDArray[np.float64], episode: Episode) -> None:
        """The simulator's whole state, of whatever it makes of it; its label says of which scene."""
        scene = MultiArrayDimension(label=scene_label(episode.task, episode.seed), size=len(state), stride=len(state))
        self._state.publish(Float64MultiArray(layout=MultiArrayLayout(dim=[scene]), data=array("d", state.tobytes())))

    def publish(self, observation: Observation) -> None:
        """One instant: the clock first, then states, then the images, which take longest on their way."""
        stamp_ns = observation.stamp_ns
        if self._clock is not None:
            self._clock.publish(Clock(clock=ns_to_stamp(stamp_ns)))
        self._joints.publish(array_to_joint_state(observation.joints, self._contract.joints.names, stamp_ns))
        if self._pose is not None and observation.pose is not None:
            self._pose.publish(pose_to_msg(observation.pose, stamp_ns, self._contract.base_frame))
        for name, image in observation.images.items():
            self._images[name].publish(array_to_image(image, stamp_ns, f"camera_{name}"))

    def publish_event(self, event: int, episode: Episode, stamp_ns: int, message: str) -> None:
        """Say on /vla/episode that `episode` began or ended (EpisodeEvent.START, SUCCESS, FAILURE)."""
        self._episode.publish(EpisodeEvent(header=make_header(stamp_ns, ""), event=event, task=episode.task,
                                           instruction=episode.instruction, seed=episode.seed, message=message))

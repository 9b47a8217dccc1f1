"""A contract in, a robot that stands still out: its cameras, joints and pose at steady rates, for measurements.

    python -m vla_policy_node.robot_double --contract FILE --camera-rate 30
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState

from vla_policy.contract import RobotContract, load_contract
from vla_policy.types import Pose
from vla_policy_node.messages import array_to_image, array_to_joint_state, ns_to_stamp, pose_to_msg
from vla_policy_node.pace import Pace
from vla_policy_node.serving import serve_until_signal

STATES_PER_FRAME = 3


class RobotDouble(Node):
    """Publishes what the contract says a robot reports: joints and pose STATES_PER_FRAME times as often as images, one
    of them at the images' instant. Images are noise, made once: only their stamps change.
    """

    def __init__(self, contract: RobotContract, camera_rate_hz: float) -> None:
        super().__init__("robot_double")
        qos = Pace.REALTIME.sensor_qos
        rng = np.random.default_rng(0)
        self._cameras = [
            (self.create_publisher(Image, camera.topic, qos),
             array_to_image(rng.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8), 0, name))
            for name, camera in contract.cameras.items()
        ]
        self._send_state = self._state_sender(contract)
        self._ticks = 0
        self.create_timer(1 / (STATES_PER_FRAME * camera_rate_hz), self._tick)

    def _tick(self) -> None:
        stamp_ns = time.time_ns()
        if self._ticks % STATES_PER_FRAME == 0:
            for publisher, msg in self._cameras:
                msg.header.stamp = ns_to_stamp(stamp_ns)
                publisher.publish(msg)
        self._send_state(stamp_ns)
        self._ticks += 1

    def _state_sender(self, contract: RobotContract) -> Callable[[int], None]:
        qos, names = Pace.REALTIME.sensor_qos, contract.joints.names
        joints = self.create_publisher(JointState, contract.joints.topic, qos)
        pose = None if contract.pose is None else self.create_publisher(PoseStamped, contract.pose.topic, qos)
        box = contract.limits.workspace
        centre = np.zeros(3) if box is None else np.array([sum(side) / 2 for side in (box.x, box.y, box.z)])
        tool = Pose(centre, np.array([1.0, 0.0, 0.0, 0.0]))

        def send(stamp_ns: int) -> None:
            """Joints and pose of an instant."""
            joints.publish(array_to_joint_state(np.zeros(len(names)), names, stamp_ns))
            if pose is not None:
                pose.publish(pose_to_msg(tool, stamp_ns, contract.base_frame))

        return send


def main() -> None:
    """Publish until a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contract", required=True)
    parser.add_argument("--camera-rate", type=float, default=30.0, help="[Hz]")
    options = parser.parse_args()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = RobotDouble(load_contract(options.contract), options.camera_rate)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    serve_until_signal(executor)
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()

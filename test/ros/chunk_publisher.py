"""A contract file and a run id in; chunks that ask for 0.1 m/s, ten a second, out, until the process is killed."""

from __future__ import annotations

import sys

import numpy as np
import rclpy
from vla_msgs.msg import ActionChunk as ActionChunkMsg

from vla_policy.contract import load_contract
from vla_policy.types import ActionChunk
from vla_policy_node.messages import chunk_to_msg
from vla_policy_node.pace import RELIABLE


def main() -> None:
    contract, run_id = load_contract(sys.argv[1]), int(sys.argv[2])
    rclpy.init()
    node = rclpy.create_node("chunk_publisher")
    publisher = node.create_publisher(ActionChunkMsg, "/vla/action_chunk", RELIABLE)
    row = np.zeros(len(contract.action_names))
    row[0] = 0.1 / contract.action.rate_hz

    def publish() -> None:
        stamp_ns = node.get_clock().now().nanoseconds
        chunk = ActionChunk(stamp_ns, contract.action_dt_ns, np.tile(row, (400, 1)), 4, run_id)
        publisher.publish(chunk_to_msg(chunk, contract))

    node.create_timer(0.1, publish)
    rclpy.spin(node)


if __name__ == "__main__":
    main()

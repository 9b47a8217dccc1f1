"""Chains of tasks over ROS in lockstep: the commands of one process, bit for bit; and poses as commands.

CALVIN's double stands behind the nodes, so nothing of CALVIN is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from bundles import write_bundle
from calvin_double import double_sim
from geometry_msgs.msg import PoseStamped
from guard_rig import ROBOTS, guard_command
from policy_rig import policy_command
from processes import Spawn

from sim_bridges.calvin.conditions import TASKS
from sim_bridges.calvin.sim import TASK_LIMIT_S
from sim_bridges.chains import ChainResult
from sim_bridges.command_intake import _arm_values
from sim_bridges.rollout import rollout_chain
from sim_bridges.ros_rollout import RosRollout
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import VlaError
from vla_policy.policy import Policy
from vla_policy_node.pace import Pace

CONTRACT = ROBOTS / "calvin.yaml"
DOUBLE = Path(__file__).resolve().parents[1] / "sim_bridges" / "calvin"
# The node's own main, with the double in the place of genuine CALVIN.
SIM_WITH_DOUBLE = f"""
import dataclasses, sys
from sim_bridges import registry, sim_node
sys.path.insert(0, {str(DOUBLE)!r})
registry.SIMS["calvin"] = dataclasses.replace(registry.SIMS["calvin"], sim="calvin_double:double_sim")
sim_node.main()
"""
ROWS = 40


class Played:
    """The nodes, a client that plays chains through them, and the same policy in this process."""

    def __init__(self, spawn: Spawn, folder: Path) -> None:
        sentences = [task.replace("_", " ") for task in TASKS]
        bundle = write_bundle(folder / "bundle", "calvin", sentences, action_chunk_size=ROWS)
        lockstep = ("-p", "pace:=lockstep", "-p", f"contract:={CONTRACT}")
        spawn([sys.executable, "-c", SIM_WITH_DOUBLE, "--ros-args", "-p", "sim:=calvin", *lockstep])
        spawn(guard_command(CONTRACT, "pace:=lockstep", "use_sim_time:=true"))
        spawn(policy_command(CONTRACT, bundle, "pace:=lockstep", "use_sim_time:=true"))
        self.contract: RobotContract = load_contract(CONTRACT)
        self.sim = double_sim(self.contract)
        self._policy = Policy.load(bundle, device="cpu")
        self.client = RosRollout(self.contract, Pace.LOCKSTEP)
        self.client.wait_until_ready()

    def over_ros(self, seed: int) -> ChainResult:
        return self.client.play_chain(self.sim.draw_chain(seed), TASK_LIMIT_S)

    def in_process(self, seed: int) -> ChainResult:
        return rollout_chain(self.sim, self._policy, self.contract, self.sim.draw_chain(seed), TASK_LIMIT_S)

    def close(self) -> None:
        self.client.close()
        self.sim.close()


@pytest.fixture(scope="module")
def played(spawn_shared: Spawn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    rclpy.init()
    played = Played(spawn_shared, tmp_path_factory.mktemp("chains"))
    yield played
    played.close()
    rclpy.shutdown()


def test_a_chain_over_ros_is_that_of_one_process_bit_for_bit(played: Played) -> None:
    over_ros, in_process = ([play(seed) for seed in (0, 5)] for play in (played.over_ros, played.in_process))
    assert sum(result.solved for result in in_process) > 0  # else no task followed on another
    for ours, theirs in zip(over_ros, in_process, strict=True):
        assert (ours.chain.steps, ours.solved) == (theirs.chain.steps, theirs.solved)
        for one, other in zip(ours.episodes, theirs.episodes, strict=True):
            assert (one.task, one.instruction, one.reason) == (other.task, other.instruction, other.reason)
            assert one.steps == other.steps
            assert np.array_equal(one.commands, other.commands)


def test_a_next_task_without_a_chain_is_refused(played: Played) -> None:
    played.client.play("open_drawer", 0, 0.2)
    with pytest.raises(VlaError, match="refused task 'chain/next'.*call begin_chain first"):
        played.client._play("chain/next", "open_drawer", 0, 0.2)


def test_a_pose_message_is_a_pose_command() -> None:
    msg = PoseStamped()
    msg.pose.position.y, msg.pose.orientation.z, msg.pose.orientation.w = 0.5, 0.6, 0.8
    assert _arm_values(msg).tolist() == [0.0, 0.5, 0.0, 0.0, 0.0, 0.6, 0.8]

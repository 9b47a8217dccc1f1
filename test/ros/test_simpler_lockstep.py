"""SIMPLER's episodes over ROS in lockstep: the commands of one process, bit for bit; two instructions; the last step.

Doubles of SIMPLER's environments stand behind the nodes, so nothing of SimplerEnv is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from bundles import write_bundle
from guard_rig import ROBOTS, guard_command
from policy_rig import policy_command
from processes import Spawn
from simpler_double import double_sim

from sim_bridges.results import EpisodeResult
from sim_bridges.rollout import rollout
from sim_bridges.ros_rollout import RosRollout
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import VlaError
from vla_policy.policy import Policy
from vla_policy_node.pace import Pace

CONTRACT = ROBOTS / "simpler_google.yaml"
DOUBLE = Path(__file__).resolve().parents[1] / "sim_bridges" / "simpler"
# The node's own main, with the double in the place of SimplerEnv.
SIM_WITH_DOUBLE = f"""
import dataclasses, sys
from sim_bridges import registry, sim_node
sys.path.insert(0, {str(DOUBLE)!r})
registry.SIMS["simpler"] = dataclasses.replace(registry.SIMS["simpler"], sim="simpler_double:double_sim")
sim_node.main()
"""
CAN, APPLE = "google_robot_pick_standing_coke_can", "google_robot_place_apple_in_closed_top_drawer"
SENTENCES = [CAN.replace("_", " "), "open top drawer", "place apple into top drawer"]
ROWS = 10


class Played:
    """The nodes, a client that plays episodes through them, and the same policy in this process."""

    def __init__(self, spawn: Spawn, folder: Path) -> None:
        bundle = write_bundle(folder / "bundle", "simpler_google", SENTENCES, action_chunk_size=ROWS,
                              cameras=["overhead"])
        lockstep = ("-p", "pace:=lockstep", "-p", f"contract:={CONTRACT}", "-p", f"task:={CAN}")
        spawn([sys.executable, "-c", SIM_WITH_DOUBLE, "--ros-args", "-p", "sim:=simpler", *lockstep])
        spawn(guard_command(CONTRACT, "pace:=lockstep", "use_sim_time:=true"))
        spawn(policy_command(CONTRACT, bundle, "pace:=lockstep", "use_sim_time:=true"))
        self.contract: RobotContract = load_contract(CONTRACT)
        self.sim = double_sim(self.contract)
        self._policy = Policy.load(bundle, device="cpu")
        self.client = RosRollout(self.contract, Pace.LOCKSTEP)
        self.client.wait_until_ready()

    def in_process(self, task: str, seed: int) -> EpisodeResult:
        return rollout(self.sim, self._policy, self.contract, task, seed)

    def close(self) -> None:
        self.client.close()
        self.sim.close()


@pytest.fixture(scope="module")
def played(spawn_shared: Spawn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    rclpy.init()
    played = Played(spawn_shared, tmp_path_factory.mktemp("simpler"))
    yield played
    played.close()
    rclpy.shutdown()


@pytest.mark.parametrize(("task", "steps"), [(CAN, 80), (APPLE, 110 + 100)])
def test_an_episode_over_ros_is_that_of_one_process_bit_for_bit(played: Played, task: str, steps: int) -> None:
    """The apple's first instruction takes 101 steps; what is left of the policy's last ten rows moves nothing."""
    over_ros, in_process = played.client.play(task, 0), played.in_process(task, 0)
    assert over_ros.success and in_process.success  # it holds at the last step, where the time is over too
    assert (over_ros.instruction, over_ros.reason) == (in_process.instruction, in_process.reason)
    assert over_ros.steps == in_process.steps <= steps
    assert np.array_equal(over_ros.commands, in_process.commands)


def test_no_second_instruction_follows_on_an_episode_of_one(played: Played) -> None:
    played.client.play(CAN, 1, 1.0)
    with pytest.raises(VlaError, match="refused task 'chain/next'.*got no further instruction"):
        played.client._play("chain/next", CAN, 1, 1.0)
    with pytest.raises(VlaError, match="refused task 'chain'.*plays no chains"):
        played.client._play("chain", CAN, 1, 1.0)

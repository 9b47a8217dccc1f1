"""Episodes played by the nodes and by one process: the same commands, bit for bit; and an end when a node dies."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from bundles import write_bundle
from guard_rig import ROBOTS, guard_command
from policy_rig import policy_command
from processes import Spawn, Spawned
from test_sim_node import sim_command

from sim_bridges import run_client
from sim_bridges.registry import make_sim
from sim_bridges.results import EpisodeResult
from sim_bridges.rollout import rollout
from sim_bridges.ros_rollout import RosRollout
from sim_bridges.tabletop.scene import BLOCKS
from sim_bridges.tabletop.tasks import TASKS
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.policy import Policy
from vla_policy.resources import find_policy
from vla_policy_node.pace import Pace

CONTRACT = ROBOTS / "tabletop.yaml"
TIME_LIMIT_S = 1.9  # not a whole number of policy steps
EPISODES = [("lift_red_block", 5), ("open_drawer", 7), ("lift_red_block", 5)]


def bundle_folder(folder: Path) -> Path:
    """The shipped bundle; an untrained one that knows the tabletop's words where there is none."""
    try:
        return find_policy("tabletop")
    except ConfigError:
        sentences = [
            phrase.format(colour=one, other=one) for task in TASKS.values() for phrase in task.phrases for one in BLOCKS
        ]
        return write_bundle(folder / "bundle", "tabletop", sentences)


class Played:
    """The nodes, a client that plays episodes through them, and the same policy in this process."""

    def __init__(self, spawn: Spawn, folder: Path) -> None:
        bundle = bundle_folder(folder)
        spawn(sim_command("pace:=lockstep"))
        spawn(guard_command(CONTRACT, "pace:=lockstep", "use_sim_time:=true"))
        self.node: Spawned = spawn(policy_command(CONTRACT, bundle, "pace:=lockstep", "use_sim_time:=true"))
        self.contract: RobotContract = load_contract(CONTRACT)
        self._sim = make_sim("tabletop", self.contract)
        self._policy = Policy.load(bundle, device="cpu")
        self.client = RosRollout(self.contract, Pace.LOCKSTEP)
        self.client.wait_until_ready()

    def over_ros(self, task: str, seed: int) -> EpisodeResult:
        return self.client.play(task, seed, TIME_LIMIT_S)

    def in_process(self, task: str, seed: int) -> EpisodeResult:
        return rollout(self._sim, self._policy, self.contract, task, seed, TIME_LIMIT_S)

    def close(self) -> None:
        self.client.close()
        self._sim.close()


@pytest.fixture(scope="module")
def played(spawn_shared: Spawn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    rclpy.init()
    played = Played(spawn_shared, tmp_path_factory.mktemp("lockstep"))
    yield played
    played.close()
    rclpy.shutdown()


def test_the_nodes_send_bit_for_bit_what_one_process_sends(played: Played) -> None:
    over_ros = [played.over_ros(*episode) for episode in EPISODES]
    in_process = [played.in_process(*episode) for episode in EPISODES]
    for ours, theirs in zip(over_ros, in_process, strict=True):
        assert (ours.task, ours.seed, ours.instruction) == (theirs.task, theirs.seed, theirs.instruction)
        assert (ours.success, ours.reason) == (theirs.success, theirs.reason), ours.message
        assert ours.steps == theirs.steps > 0
        assert np.array_equal(ours.commands, theirs.commands)
        assert np.array_equal(ours.requested, theirs.requested)
        assert np.abs(ours.commands[:, :6]).max() > 0.0
    assert np.array_equal(over_ros[0].commands, over_ros[2].commands)  # whatever was played in between
    assert not np.array_equal(over_ros[0].commands, over_ros[1].commands)


def test_an_episode_tells_its_stages_and_its_start(played: Played) -> None:
    result = played.over_ros("press_button", 2)
    assert result.start_ns > 0
    assert result.on_time is None  # time waits
    stages = result.latencies_ms
    assert {"decode", "preprocess", "model", "postprocess", "publish"} <= set(stages)
    # Where success falls on a tick of the policy, one more inference may be made before the news of it arrives.
    ticks = math.ceil(result.steps / 4)
    assert len(stages["model"]) in (ticks, ticks + 1)
    assert min(stages["model"]) > 0.0


def test_an_unknown_task_is_refused_by_name(played: Played) -> None:
    with pytest.raises(VlaError, match="refused task 'open_drawr'.*did you mean 'open_drawer'"):
        played.over_ros("open_drawr", 0)


def test_a_policy_that_dies_ends_the_evaluation(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_client, "SILENT_S", 3.0)
    played.node.signal(signal.SIGKILL)
    played.node.wait()
    with pytest.raises(VlaError, match="no /vla/status for 3 s while waiting for .*has the policy node ended"):
        played.over_ros("open_drawer", 1)

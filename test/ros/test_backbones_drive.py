"""Every backbone's twin with its recommended head in; out: each in turn drives the tabletop through the same nodes.

What one process commands with the same bundle shows that the policy node serves that one, and not the one before. The
last is the backbone that docs/new-backbone.md adds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rclpy
from guard_rig import ROBOTS, guard_command
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from policy_rig import policy_command
from processes import Spawn
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.task import Future
from test_matrix import EPISODE_TASK, Cell, bundle_of
from test_new_backbone import page_followed, registered_line
from test_sim_node import sim_command

from sim_bridges.rollout import rollout
from sim_bridges.ros_rollout import RosRollout
from sim_bridges.tabletop import TabletopSim
from vla_policy.checkpoint import save_bundle
from vla_policy.contract import load_contract
from vla_policy.model.registry import BACKBONES
from vla_policy.policy import Policy
from vla_policy_node.pace import Pace

CONTRACT = ROBOTS / "tabletop.yaml"
RECOMMENDED = ("policy_head", "lstm")  # formulation and head of all model files in config/models
TIME_LIMIT_S = 1.0
DEADLINE_S = 60.0  # generous: a loaded machine is no fault of the nodes
NEW_BACKBONE, NEW_CLASS = registered_line()
# The policy node as it is once the page's line stands in the registry.
POLICY_NODE = f"""
from vla_policy.model.registry import BACKBONES
from vla_policy_node.policy_node import main
BACKBONES["{NEW_BACKBONE}"] = "{NEW_CLASS}"
main()
"""


class Nodes:
    """A simulator, a guard and an unconfigured policy node, and a client that plays episodes through them."""

    def __init__(self, spawn: Spawn, adapters: Path) -> None:
        spawn(sim_command("pace:=lockstep"))
        spawn(guard_command(CONTRACT, "pace:=lockstep", "use_sim_time:=true"))
        settings = ("pace:=lockstep", "use_sim_time:=true", "device:=cpu", "autostart:=false")
        python, _, _, *options = policy_command(CONTRACT, adapters, *settings)
        paths = os.pathsep.join((str(adapters), os.environ.get("PYTHONPATH", "")))
        self.policy = spawn([python, "-c", POLICY_NODE, *options], env={"PYTHONPATH": paths})
        self.client = RosRollout(load_contract(CONTRACT), Pace.LOCKSTEP)
        self._manager = rclpy.create_node("manager")
        self._parameters = AsyncParameterClient(self._manager, "policy_node")
        self._transition = self._manager.create_client(ChangeState, "/policy_node/change_state")
        assert self._parameters.wait_for_services(DEADLINE_S) and self._transition.wait_for_service(DEADLINE_S)

    def close(self) -> None:
        self.client.close()
        self._manager.destroy_node()

    @contextmanager
    def serving(self, bundle: Path) -> Iterator[RosRollout]:
        """The client, while the policy node serves this bundle."""
        self._answer(self._parameters.set_parameters([Parameter("bundle", value=str(bundle))]))
        self._change(Transition.TRANSITION_CONFIGURE)
        self._change(Transition.TRANSITION_ACTIVATE)
        try:
            self.client.wait_until_ready()
            yield self.client
        finally:
            self._change(Transition.TRANSITION_DEACTIVATE)
            self._change(Transition.TRANSITION_CLEANUP)

    def _change(self, transition: int) -> None:
        answer = self._answer(self._transition.call_async(ChangeState.Request(transition=Transition(id=transition))))
        assert answer.success, self.policy.output

    def _answer(self, future: Future) -> object:
        rclpy.spin_until_future_complete(self._manager, future, timeout_sec=DEADLINE_S)
        assert future.done(), self.policy.output
        return future.result()


@pytest.fixture(scope="module")
def nodes(spawn_shared: Spawn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    rclpy.init()
    adapters = tmp_path_factory.mktemp("adapters")
    with page_followed(adapters):
        nodes = Nodes(spawn_shared, adapters)
        yield nodes
        nodes.close()
    rclpy.shutdown()


@pytest.fixture(scope="module")
def sim() -> Iterator[TabletopSim]:
    sim = TabletopSim()
    yield sim
    sim.close()


@pytest.mark.parametrize("backbone", [*BACKBONES, NEW_BACKBONE])
def test_a_backbone_drives_through_the_nodes(backbone: str, nodes: Nodes, sim: TabletopSim, tmp_path: Path) -> None:
    bundle = bundle_of(Cell(backbone, *RECOMMENDED).file())
    save_bundle(tmp_path / "bundle", bundle)
    with nodes.serving(tmp_path / "bundle") as client:
        ours = client.play(EPISODE_TASK, 0, TIME_LIMIT_S)
    theirs = rollout(sim, Policy(bundle), bundle.contract, EPISODE_TASK, 0, TIME_LIMIT_S)
    assert ours.reason == "TIME_LIMIT", ours.message
    assert ours.commands[:, :6].any()
    assert len(ours.latencies_ms["model"]) == math.ceil(ours.steps / bundle.config.execute_rows) > 0
    assert np.array_equal(ours.commands, theirs.commands)

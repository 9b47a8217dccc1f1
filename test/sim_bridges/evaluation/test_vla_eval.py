"""vla-eval's own harness and model server on one side, ours on the other, over a whole episode of the tabletop."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_rig import serving

from sim_bridges.evaluate import evaluate, parse_arguments
from sim_bridges.sim import Sim
from sim_bridges.tabletop.sim import TabletopSim
from vla_policy.checkpoint import load_bundle
from vla_policy.contract import load_contract
from vla_policy.policy import Policy
from vla_policy.remote.convention import Convention
from vla_policy.remote.server import ServerOptions
from vla_policy.remote.session import Session
from vla_policy.resources import find_contract, find_policy
from vla_policy.types import Command, Observation, Pose

benchmarks = pytest.importorskip("vla_eval.benchmarks.base", reason="needs vla-eval; see requirements/test.txt")
runners = pytest.importorskip("vla_eval.runners.sync_runner")
connection = pytest.importorskip("vla_eval.connection")
their_serving = pytest.importorskip("vla_eval.model_servers.serve")
servers = pytest.importorskip("vla_eval.model_servers.predict")
specs = pytest.importorskip("vla_eval.specs")

CONTRACT = load_contract(find_contract("tabletop"))
TASK, SEED = "press_button", 1_000_000
START_S = 60.0


class Tabletop(benchmarks.StepBenchmark):
    """The embedded tabletop as vla-eval knows benchmarks: one row of an action a step, no guard between."""

    def __init__(self, sim: Sim) -> None:
        super().__init__()
        self._sim = sim
        self.steps = 0

    def get_tasks(self) -> list[dict[str, Any]]:
        return [{"name": TASK, "seed": SEED}]

    def reset(self, task: dict[str, Any]) -> Observation:
        self._instruction = self._sim.reset(task["name"], task["seed"]).instruction
        return self._sim.observe()

    def step(self, action: dict[str, Any]) -> Any:
        self.steps += 1
        row = np.asarray(action["actions"], np.float64)
        dt_s = CONTRACT.action_dt_ns / 1e9
        command = Command(self._sim.time_ns, row[:6] / dt_s, float(np.clip(row[6], 0.0, 1.0)))
        self._sim.advance(command, CONTRACT.action_dt_ns)
        return benchmarks.StepResult(self._sim.observe(), 0.0, self._sim.success(), {})

    def make_obs(self, raw_obs: Observation, task: dict[str, Any]) -> dict[str, Any]:
        pose = np.concatenate([raw_obs.pose.position, raw_obs.pose.quaternion])
        return {"images": dict(raw_obs.images), "task_description": self._instruction, "joints": raw_obs.joints,
                "pose": pose}  # fmt: skip

    def get_step_result(self, step_result: Any) -> dict[str, Any]:
        return {"success": self._sim.success()}


class OurPolicy(servers.PredictModelServer):
    """The shipped policy behind vla-eval's server, as rows that say what they mean."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(chunk_size=policy.period_ns // CONTRACT.action_dt_ns)
        self._policy, self._told = policy, ""

    async def on_episode_start(self, config: Any, ctx: Any) -> None:
        await super().on_episode_start(config, ctx)
        self._told = ""

    def predict(self, obs: dict[str, Any], ctx: Any) -> dict[str, Any]:
        if obs["task_description"] != self._told:
            self._told = obs["task_description"]
            self._policy.reset(self._told)
        pose = Pose(np.asarray(obs["states"][:3], np.float64), np.asarray(obs["states"][3:7], np.float64))
        joints = np.asarray(obs["states"][7:], np.float64)
        seen = Observation(ctx.step * CONTRACT.action_dt_ns, dict(obs["images"]), joints, pose)
        values = self._policy.step(seen).values[: self.chunk_size].copy()
        values[:, 6] = 1.0 - values[:, 6]  # 1 is closed there
        return {"actions": values}

    def get_action_spec(self) -> dict[str, Any]:
        return {"position": specs.POSITION_DELTA, "rotation": specs.ROTATION_AA, "gripper": specs.GRIPPER_CLOSE_POS}

    def get_observation_spec(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(load_bundle(find_policy("tabletop")), "cpu")


@pytest.fixture
def our_server(policy: Policy) -> Iterator[str]:
    with serving(lambda: Session(policy, CONTRACT, Convention(), True), ServerOptions(port=0)) as address:
        yield address


@pytest.fixture
def their_server(policy: Policy) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (OurPolicy(policy), "127.0.0.1", port)
    threading.Thread(target=their_serving.serve, args=arguments, daemon=True).start()
    until(lambda: answers(port))
    return f"ws://127.0.0.1:{port}"


def test_their_harness_plays_an_episode_of_our_tabletop_against_our_server(our_server: str) -> None:
    sim = TabletopSim()
    benchmark = Tabletop(sim)

    async def play() -> Any:
        async with connection.Connection(our_server, max_retries=1) as client:
            assert client.server_info["action_spec"]["rotation"]["format"] == "axis_angle"
            task, runner = benchmark.get_tasks()[0], runners.SyncEpisodeRunner()
            return await runner.run_episode(benchmark, task, client, max_steps=100)

    result = asyncio.run(play())
    sim.close()
    assert result["metrics"] == {"success": True}
    assert result["steps"] == benchmark.steps > 10


def test_our_evaluation_plays_against_their_server_as_against_the_bundle(their_server: str, tmp_path: Path) -> None:
    common = ["--tasks", TASK, "--episodes", "1", "--seed", str(SEED), "--output"]
    (theirs,) = evaluate(parse_arguments(["--policy", their_server, *common, str(tmp_path / "theirs")]))
    (ours,) = evaluate(parse_arguments(["--policy", "tabletop", *common, str(tmp_path / "ours")]))
    assert theirs.success and ours.success
    # The first chunk comes of the same sight; later ones differ by what float32 on the wire makes of it.
    np.testing.assert_allclose(theirs.commands[:4], ours.commands[:4], atol=1e-5)
    assert json.loads((tmp_path / "theirs" / "results.json").read_text())["run"]["policy"] == their_server


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(there: Callable[[], bool]) -> None:
    end_s = time.monotonic() + START_S
    while not there():
        assert time.monotonic() < end_s
        time.sleep(0.05)

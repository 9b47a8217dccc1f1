"""The launch files as a person uses them: what they bring up, what they refuse, how they end."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from bundles import write_bundle
from guard_rig import twist_values
from policy_rig import DEADLINE_S, PolicyRig, patient_contract, policy_command
from processes import Spawn, Spawned
from vla_msgs.msg import PolicyStatus, SafetyStatus

from sim_bridges.tabletop.scene import BLOCKS
from sim_bridges.tabletop.tasks import TASKS
from vla_policy.run import EndReason
from vla_policy.types import Pose

BRINGUP = ["ros2", "launch", "vla_policy", "bringup.launch.py"]
SENTENCES = sorted(
    {phrase.format(colour=one, other=one) for task in TASKS.values() for phrase in task.phrases for one in BLOCKS}
)
SILENT_SOON_S = 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bringup")


@pytest.fixture(scope="module")
def contract(folder: Path) -> Path:
    return patient_contract("tabletop", folder, silence_s=SILENT_SOON_S)


@pytest.fixture(scope="module")
def bundle(folder: Path, contract: Path) -> Path:
    return write_bundle(folder / "bundle", contract, SENTENCES)


@pytest.fixture
def launch(spawn: Spawn, contract: Path, bundle: Path) -> Callable[..., Spawned]:
    """`launch("name:=value", …)` runs bringup.launch.py with the tests' robot and bundle; "name:=" leaves one out."""
    given = {"headless": "true", "robot": str(contract), "policy": str(bundle)}

    def start(*arguments: str) -> Spawned:
        words = given | dict(argument.split(":=") for argument in arguments)
        return spawn([*BRINGUP, *(f"{name}:={value}" for name, value in words.items() if value)])

    return start


@pytest.fixture
def make_rig() -> Iterator[Callable[..., PolicyRig]]:
    rigs = []

    def make(*args: object, **options: object) -> PolicyRig:
        rigs.append(PolicyRig(*args, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def family(process: Spawned) -> dict[str, psutil.Process]:
    """The nodes that a launch has started, by their executable's name."""
    children = psutil.Process(process.pid).children(recursive=True)
    names = ("policy_node", "guard_node", "sim_node", "evaluate")
    return {name: child for child in children for name in names if any(word.endswith(name) for word in child.cmdline())}


def assert_all_end(nodes: dict[str, psutil.Process]) -> None:
    _, alive = psutil.wait_procs(list(nodes.values()), timeout=DEADLINE_S)
    assert not alive


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["epsodes:=3"], ["unknown launch argument 'epsodes'", "did you mean 'episodes'", "instruction"]),
        (["sim:=nonsense"], ["sim:=nonsense", "known: tabletop, calvin, simpler, none"]),
        (["sim:=simpler", "robot:="], ["got tasks 'all'", "robot simpler_google or simpler_widowx"]),
        (["sim_python:=/no/python"], ["sim_python:=/no/python: no such program", "VENV/bin/python"]),
        (["pace:=locksteep"], ["pace:=locksteep", "did you mean 'lockstep'"]),
        (["engine:=graf"], ["engine:=graf", "did you mean 'graph'"]),
        (["execution:=fast"], ["execution:=fast", "known: blocking, async, ensemble, rtc"]),
        (["episodes:=x"], ["episodes:=x", "whole number"]),
        (["sim:=none", "robot:="], ["sim:=none needs robot:=NAME"]),
        (["sim:=none", "robot:=ur5", "policy:=."], ["got 'ur5'", "did you mean 'ur5e'"]),
        (["policy:=tabeltop"], ["got 'tabeltop'", "policies"]),
    ],
)
def test_a_wrong_argument_starts_nothing(
    launch: Callable[..., Spawned], arguments: list[str], words: list[str]
) -> None:
    process = launch(*arguments)
    assert process.wait() == 1
    assert all(word in process.output for word in words), process.output
    assert "process started" not in process.output
    assert "Traceback" not in process.output


def test_a_policy_for_another_robot_ends_the_launch_with_both_values(launch: Callable[..., Spawned]) -> None:
    process = launch("sim:=none", "robot:=ur5e")
    assert process.wait() == 1
    line = next(line for line in process.output.splitlines() if "does not fit robot 'ur5e'" in line)
    for words in (
        "action rate_hz: bundle 20.0, robot 10.0",
        "base_frame: bundle base_link, robot base",
        "camera 'static': bundle 224x224, robot 640x480",
        "choose another policy",
    ):
        assert words in line
    assert "the policy node refused to start" in process.output


def test_an_altered_bundle_is_refused_by_name(spawn: Spawn, contract: Path, bundle: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered"
    subprocess.run(["cp", "-r", bundle, altered], check=True)
    weights = altered / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    process = spawn(policy_command(contract, altered))
    assert process.wait() == 1
    (line,) = [line for line in process.output.splitlines() if "ERROR" in line]
    assert str(weights) in line and "truncated or altered" in line and "copy the bundle again" in line
    assert "Traceback" not in process.output


def test_a_simulator_that_cannot_start_ends_the_launch(launch: Callable[..., Spawned]) -> None:
    process = launch("task:=open_drawr")
    assert process.wait() == 1
    assert "did you mean 'open_drawer'" in process.output
    assert "the simulator ended, see its last lines above" in process.output


# ---- episodes ---------------------------------------------------------------------------------------------------


def test_episodes_are_played_told_and_written(launch: Callable[..., Spawned], tmp_path: Path) -> None:
    process = launch(
        "episodes:=1", "tasks:=press_button", "seed:=5", f"output:={tmp_path}", f"summary:={tmp_path / 'also.json'}"
    )
    assert process.wait(150) == 0, process.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == json.loads((tmp_path / "also.json").read_text())
    assert summary["episodes"] == 1 and 0.0 <= summary["success_rate"] <= 1.0
    (row,) = summary["rows"]
    assert (row["task"], row["seed"]) == ("press_button", 5)
    assert row["reason"] in ("TIME_LIMIT", "SUCCEEDED")
    assert summary["latency_ms"]["model"]["count"] > 0
    with np.load(tmp_path / "commands" / "press_button" / "5.npz") as commands:
        assert len(commands["0.commands"]) == row["steps"] > 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"commands.png", "latencies.png"}
    assert (tmp_path / "episodes.mp4").stat().st_size > 10_000
    assert row["instruction"] in process.output


def test_ctrl_c_in_an_episode_leaves_no_process(launch: Callable[..., Spawned]) -> None:
    process = launch("episodes:=50")
    process.wait_for("drives the robot", timeout_s=120)
    nodes = family(process)
    assert set(nodes) == {"policy_node", "guard_node", "sim_node", "evaluate"}
    process.signal(signal.SIGINT)
    assert process.wait() in (0, 130, -signal.SIGINT), process.output
    assert_all_end(nodes)
    assert "Traceback" not in process.output


# ---- a policy that is killed ------------------------------------------------------------------------------------


def test_a_policy_that_is_killed_while_the_arm_moves(
    launch: Callable[..., Spawned], make_rig: Callable[..., PolicyRig], spawn: Spawn, contract: Path, bundle: Path
) -> None:
    instruction = SENTENCES[0]
    process = launch("pace:=realtime", f"instruction:={instruction}")
    process.wait_for("drives the robot", timeout_s=120)
    rig = make_rig(contract, feeding=False)
    rig.until_moving()
    nodes = family(process)
    nodes["policy_node"].kill()
    rig.until(lambda: rig.safety and rig.safety[-1].state == SafetyStatus.STOPPED, "latched stop")
    assert rig.safety[-1].reason == SafetyStatus.SILENCE
    assert "no chunk for" in rig.safety[-1].message
    rig.assert_still()
    resting = rig.fresh_positions(10)
    assert np.ptp(resting, axis=0).max() < 1e-3  # m; the simulated arm stands
    process.wait_for("the policy node ended; the guard goes on and holds the robot")
    assert nodes["guard_node"].is_running() and nodes["sim_node"].is_running()

    again = spawn(policy_command(contract, bundle))
    rig.until(
        lambda: (
            rig.statuses
            and rig.statuses[-1].state == PolicyStatus.IDLE
            and rig.statuses[-1].header.stamp.sec >= rig.safety[-1].header.stamp.sec
        ),
        "new policy",
    )
    rig.reset()
    goal = rig.send(instruction)
    rig.until_moving()
    again.signal(signal.SIGINT)  # the gentle way out, in the middle of a run
    assert EndReason(goal.result().reason) is EndReason.DEACTIVATED
    assert again.wait() == 0
    assert "Traceback" not in again.output
    rig.until(lambda: rig.safety[-1].state == SafetyStatus.IDLE, "guard that heard of the end")
    rig.assert_still()


# ---- a real robot -----------------------------------------------------------------------------------------------


def test_a_robot_whose_drivers_run_already(spawn: Spawn, make_rig: Callable[..., PolicyRig], tmp_path: Path) -> None:
    contract = patient_contract("ur5e", tmp_path)
    bundle = write_bundle(tmp_path / "bundle", contract, ("open the drawer",))
    rig = make_rig(contract, home=Pose(np.array([0.0, -0.5, 0.3]), np.array([1.0, 0.0, 0.0, 0.0])))
    process = spawn(
        [
            *BRINGUP,
            "sim:=none",
            f"robot:={contract}",
            f"policy:={bundle}",
            "headless:=true",
            "instruction:=open the drawer",
        ]
    )
    process.wait_for("drives the robot", timeout_s=120)
    rig.until_moving()
    assert rig.arm[-1].header.frame_id == "base"
    limit = rig.contract.limits.linear_velocity_m_s
    assert all(np.linalg.norm(twist_values(msg)[:3]) <= limit + 1e-9 for msg in rig.arm)
    nodes = family(process)
    assert set(nodes) == {"policy_node", "guard_node"}
    process.signal(signal.SIGINT)
    assert process.wait() in (0, 130, -signal.SIGINT), process.output
    assert_all_end(nodes)
    rig.until(lambda: not twist_values(rig.arm[-1]).any(), "stop as the guard's last word")
    assert "Traceback" not in process.output

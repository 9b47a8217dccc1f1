"""record.launch.py as a person uses it, and the command that measures the recorder."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from policy_rig import patient_contract
from processes import Spawn, Spawned
from recorder_rig import RecorderClient

from vla_policy.recording import COMMAND_TOPIC, read_episode
from vla_policy.recorded_bag import BagMessages, find_file

RECORD = ["ros2", "launch", "vla_policy", "record.launch.py"]


@pytest.fixture
def launch(spawn: Spawn, tmp_path: Path) -> Callable[..., Spawned]:
    """`launch("name:=value", …)` runs record.launch.py with the tests' robot."""
    given = [f"robot:={patient_contract('tabletop', tmp_path)}", f"output:={tmp_path / 'demos'}", "headless:=true"]
    return lambda *arguments: spawn([*RECORD, *given, *arguments])


@pytest.fixture
def client(ros_env: dict[str, str]) -> Iterator[RecorderClient]:
    client = RecorderClient()
    yield client
    client.close()


def test_an_episode_of_the_simulator_is_recorded_in_one_launch(
    launch: Callable[..., Spawned], client: RecorderClient, tmp_path: Path
) -> None:
    process = launch("task:=open_drawer", "seed:=5", "device:=none", "operator:=007", "min_free_mb:=1")
    folder = client.record(instruction="")
    assert folder == tmp_path / "demos" / "episode_0000"
    client.until_written(100)
    assert client.stop(outcome=1).success
    record = read_episode(folder)
    assert (record.task, record.seed, record.operator, record.outcome) == ("open_drawer", 5, "007", "success")
    assert "drawer" in record.instruction and record.topics["/vla/safety"].messages >= 1
    expected = {record.contract.joints.topic: "sensor_msgs/msg/JointState"}
    with BagMessages(find_file(folder), expected, {COMMAND_TOPIC: "vla_msgs/msg/RobotCommand"}) as messages:
        assert sum(1 for _ in messages) >= 20
    process.signal(signal.SIGINT)
    assert process.wait() == 0


@pytest.mark.parametrize(("arguments", "words"), [
    (("device:=mouse",), "device:=mouse; did you mean 'spacemouse'?"),
    (("tasks:=all",), "unknown launch argument 'tasks'; did you mean 'task'?"),
    (("sim:=none",), "sim:=none needs robot:=NAME"),
    (("min_free_mb:=much",), "min_free_mb:=much: expected a whole number"),
])
def test_a_wrong_argument_ends_the_launch(spawn: Spawn, arguments: tuple[str, ...], words: str) -> None:
    process = spawn([*RECORD, *arguments])
    assert process.wait() == 1
    assert words in process.output and "process started" not in process.output


def test_a_keyboard_is_driven_from_a_terminal_of_its_own(launch: Callable[..., Spawned]) -> None:
    process = launch("sim:=none", "device:=keyboard", "operator:=Ada")
    process.wait_for(r"ros2 run vla_policy teleop_node --ros-args .*-p device:='keyboard' .*-p operator:='Ada'")
    process.wait_for("ready to record tabletop")
    process.signal(signal.SIGINT)
    assert process.wait() == 0


def test_the_measuring_command_counts_what_it_sends(spawn: Spawn, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    process = spawn([sys.executable, "-m", "vla_policy_node.bench_recorder", "--seconds", "2", "--width", "64",
                     "--height", "48", "--sim", "none", "--output", tmp_path, "--json", told])
    assert process.wait() in (0, 1), process.output
    result = json.loads(told.read_text())
    assert {topic: counted["sent"] for topic, counted in result["topics"].items()} == {
        "/bench_recorder/static": 60, "/bench_recorder/wrist": 60, "/bench_recorder/joints": 200,
        "/bench_recorder/pose": 200, COMMAND_TOPIC: 40}
    for counted in result["topics"].values():
        assert counted["sent"] == counted["recorded"] + counted["dropped"] > 0
    assert result["cpu_share"] > 0 and result["megabytes_s"] > 0

"""record.launch.py as a person uses it, and the command that measures the recorder."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from policy_rig import DEADLINE_S, patient_contract
from processes import Spawn, Spawned
from recorder_rig import RecorderClient
from sensor_msgs.msg import Joy
from teleop_rig import AXES, BACK, BUTTONS, DEAD_MAN, START
from vla_msgs.msg import RecordingStatus

from vla_policy.recorded_bag import BagMessages, find_file
from vla_policy.recording import COMMAND_TOPIC, read_episode
from vla_policy_node.pace import RELIABLE
from vla_training.datasets.recorded import open_recorded

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


def test_an_operator_records_with_the_buttons_of_a_gamepad(
    launch: Callable[..., Spawned], client: RecorderClient, tmp_path: Path
) -> None:
    process = launch("task:=press_button", "device:=joy", "joy_node:=false", "operator:=Ada", "min_free_mb:=1")
    pad = Joy(axes=[0.0] * AXES, buttons=[0] * BUTTONS)
    publisher = client.node.create_publisher(Joy, "/joy", RELIABLE)
    client.node.create_timer(0.02, lambda: publisher.publish(pad))

    def press(*buttons: int) -> None:
        pad.buttons = [int(index in buttons) for index in range(BUTTONS)]

    def until_recording(state: int, *buttons: int) -> None:
        """Press and let go until it is so: the first press may come before every node is up."""
        end_s = time.monotonic() + DEADLINE_S
        while not (client.statuses and client.statuses[-1].state == state):
            assert time.monotonic() < end_s, process.output
            press()
            time.sleep(0.3)
            press(*buttons)
            time.sleep(1.5)
        press()

    until_recording(RecordingStatus.RECORDING, START)
    press(DEAD_MAN)
    pad.axes[1] = 0.5
    process.wait_for("the operator has taken over")
    client.until_written(client.statuses[-1].messages + 100)
    until_recording(RecordingStatus.IDLE, BACK, START)
    record = read_episode(tmp_path / "demos" / "episode_0000")
    assert (record.operator, record.driver, record.task) == ("Ada", "operator", "press_button")
    assert record.topics["/vla/teleop/action_chunk"].messages > 5 and record.topics[COMMAND_TOPIC].messages > 5
    columns = open_recorded(tmp_path / "demos").columns(0)
    assert columns["intervention"].any() and abs(columns["action"][:, 0]).max() > 0
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
    assert process.wait() in (0, 1) and told.exists(), process.output
    result = json.loads(told.read_text())
    assert {topic: counted["sent"] for topic, counted in result["topics"].items()} == {
        "/bench_recorder/static": 60, "/bench_recorder/wrist": 60, "/bench_recorder/joints": 200,
        "/bench_recorder/pose": 200, COMMAND_TOPIC: 40}
    for counted in result["topics"].values():
        assert counted["sent"] == counted["recorded"] > 0 or counted["dropped"]
    assert result["cpu_share"] > 0 and result["megabytes_s"] > 0

"""The guard as a process on real topics: what it lets through, what stops it, what ends a stop, how it leaves."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from guard_rig import ROBOTS, GuardRig, guard_command, relaxed_contract, twist_values
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from vla_msgs.msg import SafetyStatus

from vla_policy.action.guard import Guard
from vla_policy.action.safety import GuardState, StopReason
from vla_policy.messages import chunk_from_msg
from vla_policy.types import Observation, Pose
from vla_policy_node.messages import end_of_run_msg, ns_to_stamp
from vla_policy_node.operator_topics import OPERATOR_TOPIC, TAKE_OVER_SERVICE

CENTRE = (0.5, 0.0, 0.3)
SLOW = [0.005, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]  # 0.1 m/s at 20 rows a second, gripper open
SILENT_SOON_S = 1.0

Start = Callable[..., GuardRig]


@pytest.fixture
def start(spawn: Callable[..., Any], tmp_path: Path) -> Iterator[Start]:
    """`start(robot, *parameters, position=…, watchdog=…)` starts a guard and returns a rig connected to it."""
    rigs = []

    def begin(robot: str = "tabletop", *parameters: str, position: tuple[float, float, float] = CENTRE,
              watchdog: dict[str, float] | None = None, feeding: bool = True) -> GuardRig:
        path = relaxed_contract(robot, tmp_path, **(watchdog or {}))
        guard = spawn(guard_command(path, *parameters))
        rig = GuardRig(path, position)
        rigs.append(rig)
        rig.feeding, rig.guard, rig.path = feeding, guard, path
        rig.connect()
        return rig

    yield begin
    for rig in rigs:
        rig.close()


def assert_still(twists: list[np.ndarray]) -> None:
    assert twists and not np.array(twists).any()


# ---- driving ----------------------------------------------------------------------------------------------------


def test_commands_are_limited_told_and_sent_to_the_robot(start: Start) -> None:
    rig = start()
    assert rig.safety[-1].state == SafetyStatus.IDLE  # the status of before we came
    assert not rig.arm
    chunk = rig.send_chunk([0.05, *SLOW[1:]], run_id=5)  # 1 m/s, more than double the limit
    rig.until(lambda: len(rig.arm) >= 4, "arm commands")
    limit = rig.contract.limits.linear_velocity_m_s

    command = rig.until_driven(5)
    assert command.observation_stamp == chunk.header.stamp
    assert list(command.names) == list(rig.contract.command_names)
    assert rig.raw[0].values[0] == pytest.approx(1.0)
    assert all(np.linalg.norm(twist_values(msg)[:3]) <= limit + 1e-9 for msg in rig.arm)
    assert twist_values(rig.arm[3])[0] == pytest.approx(limit)
    assert {msg.header.frame_id for msg in rig.arm} == {"base_link"}
    assert rig.gripper[0].opening == 1.0
    assert rig.arm[0].header.stamp == rig.gripper[0].header.stamp == command.header.stamp
    status = rig.until_state(SafetyStatus.LIMITING)
    assert list(status.limited) == [True] + [False] * 6
    assert status.run_id == 5


def test_the_end_of_a_run_holds_the_robot(start: Start) -> None:
    rig = start()
    rig.send_chunk(SLOW, run_id=1)
    rig.until_driven(1)
    rig.publish_chunk(end_of_run_msg(1, rig.now_ns(), rig.contract))
    rig.until_state(SafetyStatus.IDLE)
    assert_still(rig.until_fresh_twists())
    assert rig.sent[-1].run_id == 0


def test_lockstep_answers_each_instant_once_and_waits_for_the_policy(start: Start) -> None:
    rig = start("tabletop", "pace:=lockstep", feeding=False)
    instants = [10**9 + k * rig.contract.control_dt_ns for k in range(4)]
    rig.feed(instants[0])
    rig.send_chunk(SLOW, run_id=1, stamp_ns=instants[0], execute_rows=2)
    for k, instant_ns in enumerate(instants[:2]):
        if k:
            rig.feed(instant_ns)
        rig.until(lambda earlier=k: len(rig.sent) > earlier, f"command {k}")
    rig.feed(instants[2])  # a newer chunk is due: no command yet
    arrived = len(rig.arm)
    rig.feed(instants[1])  # a simulator that repeats an instant gets its command again …
    rig.until(lambda: len(rig.arm) > arrived, "repeated command")
    assert rig.arm[-1].header.stamp == ns_to_stamp(instants[1])
    assert len(rig.sent) == 2  # … which is no new decision
    rig.feed(instants[2])
    rig.send_chunk(SLOW, run_id=1, stamp_ns=instants[2], execute_rows=2)
    rig.until(lambda: len(rig.sent) == 3, "command after the chunk")
    assert [msg.header.stamp for msg in rig.sent] == [ns_to_stamp(instant_ns) for instant_ns in instants[:3]]
    assert [msg.row for msg in rig.sent] == [0, 1, 0]


def test_lockstep_sends_bit_for_bit_what_the_library_decides(start: Start) -> None:
    rig = start("tabletop", "pace:=lockstep", feeding=False)
    guard, generator = Guard(rig.contract, silence_s=math.inf), np.random.default_rng(2)
    for k in range(6):
        now_ns = 10**9 + k * rig.contract.control_dt_ns
        rig.pose = Pose(np.array(CENTRE) + generator.normal(0.0, 0.05, 3), rig.pose.quaternion)
        state = Observation(now_ns, {}, rig.joints, rig.pose)
        rig.feed(now_ns)
        if guard.must_wait(now_ns):
            msg = rig.chunk_message(generator.normal(0.0, 0.01, 7), run_id=1, stamp_ns=now_ns, execute_rows=2)
            guard.accept(chunk_from_msg(msg, rig.contract), 0)
            rig.publish_chunk(msg)
        expected = guard.command(now_ns, state, 0).sent
        rig.until(lambda earlier=k: len(rig.sent) > earlier, "command of the instant")
        assert list(rig.sent[k].values) == [*expected.arm, expected.gripper]


def test_no_operator_drives_in_lockstep(start: Start) -> None:
    rig = start("tabletop", "pace:=lockstep", feeding=False)
    assert not rig.node.count_subscribers(OPERATOR_TOPIC)
    assert TAKE_OVER_SERVICE not in dict(rig.node.get_service_names_and_types())


# ---- real arms --------------------------------------------------------------------------------------------------


def test_a_ur5e_gets_twists_in_its_base_frame_and_a_gripper_array(start: Start) -> None:
    rig = start("ur5e", position=(0.0, -0.5, 0.3))
    gripper_driver = rig.node.create_publisher(JointState, "/joint_states", 10)
    gripper_driver.publish(JointState(name=["robotiq_85_left_knuckle_joint"], position=[0.1]))  # not of the arm
    rig.send_chunk([0.0, 0.0, 0.01, 0.0, 0.0, 0.0, 0.25], run_id=1)
    rig.until(lambda: len(rig.arm) > 6 and rig.gripper, "commands")
    assert rig.arm[0].header.frame_id == "base"
    assert twist_values(rig.arm[6])[2] == pytest.approx(0.1)
    assert isinstance(rig.gripper[0], Float64MultiArray)
    assert list(rig.gripper[0].data) == pytest.approx([0.7929 * 0.75])
    assert "ignored" not in rig.guard.output


def test_a_franka_gets_poses_that_start_where_it_stands(start: Start) -> None:
    rig = start("franka", position=(0.5, 0.1, 0.4))
    rig.send_chunk([0.52, 0.1, 0.4, 0.0, 0.0, 0.0, 1.0], run_id=1)
    rig.until(lambda: rig.arm and rig.arm[-1].pose.position.x > 0.5199, "arrival")
    steps = np.diff([0.5] + [msg.pose.position.x for msg in rig.arm])
    assert steps.max() <= rig.contract.limits.linear_velocity_m_s * 0.02 + 1e-9
    assert (rig.arm[0].header.frame_id, rig.arm[0].pose.position.y) == ("base", pytest.approx(0.1))


def test_an_so101_gets_joint_arrays_and_holds_when_stopped(start: Start) -> None:
    rig = start("so101")
    rig.send_chunk([0.1, -0.1, 0.05, 0.0, 0.2, 0.5], run_id=1)
    rig.until(lambda: rig.arm and rig.arm[-1].data[4] > 0.1999, "arrival")
    assert list(rig.arm[-1].data) == pytest.approx([0.1, -0.1, 0.05, 0.0, 0.2], abs=1e-3)
    rig.press(True)
    rig.until_state(SafetyStatus.STOPPED, SafetyStatus.ESTOP)
    seen = len(rig.arm)
    rig.until(lambda: len(rig.arm) >= seen + 3, "held position")
    assert list(rig.arm[-1].data) == pytest.approx([0.1, -0.1, 0.05, 0.0, 0.2], abs=1e-3)


# ---- what stops it ----------------------------------------------------------------------------------------------


def test_a_chunk_with_nan_latches_until_reset_and_a_new_run(start: Start) -> None:
    rig = start()
    rig.send_chunk(SLOW, run_id=1)
    rig.until_driven(1)
    rig.send_chunk([np.nan, *SLOW[1:]], run_id=1)
    status = rig.until_state(SafetyStatus.STOPPED, SafetyStatus.CHUNK_INVALID)
    assert "nan in row 0, column x" in status.message
    assert_still(rig.until_fresh_twists())
    rig.until(lambda: rig.diagnostics and rig.diagnostics[-1].status[0].level == DiagnosticStatus.ERROR,
              "diagnostics")

    rig.send_chunk(SLOW, run_id=2)
    rig.until(lambda: rig.safety[-1].run_id == 2, "status for the run that is refused")
    assert rig.safety[-1].reason == SafetyStatus.CHUNK_INVALID
    assert_still(rig.until_fresh_twists())

    assert rig.reset().success
    rig.until_state(SafetyStatus.IDLE)
    rig.send_chunk(SLOW, run_id=3)
    rig.until_driven(3)
    assert rig.guard.output.count("STOPPED, CHUNK_INVALID") == 1


def test_a_chunk_for_another_robot_is_refused_with_both_values(start: Start) -> None:
    rig = start()
    msg = rig.chunk_message(SLOW, run_id=1)
    msg.units = ["mm"] * 7
    rig.publish_chunk(msg)
    status = rig.until_state(SafetyStatus.STOPPED, SafetyStatus.CHUNK_INVALID)
    assert "units: got ['mm'" in status.message and "expected ['m'" in status.message
    assert not any(msg.run_id for msg in rig.sent)


def test_a_policy_process_that_is_killed_while_moving(start: Start, spawn: Callable[..., Any]) -> None:
    rig = start(watchdog={"silence_s": SILENT_SOON_S})
    policy = spawn([sys.executable, Path(__file__).with_name("chunk_publisher.py"), rig.path, "9"])
    rig.until_driven(9)
    rig.until(lambda: twist_values(rig.arm[-1])[0] > 0.09, "motion")
    policy.signal(signal.SIGKILL)
    policy.wait()
    status = rig.until_state(SafetyStatus.STOPPED, SafetyStatus.SILENCE)
    assert status.run_id == 9
    assert_still(rig.until_fresh_twists())


def test_silence_is_noticed_although_simulated_time_stands_still(start: Start) -> None:
    rig = start("tabletop", "use_sim_time:=true", "silence_s:=1", feeding=False)
    rig.feed(0)
    rig.send_chunk(SLOW, run_id=1, stamp_ns=0)
    rig.until_state(SafetyStatus.STOPPED, SafetyStatus.SILENCE)
    assert_still(rig.until_fresh_twists())


def test_a_robot_whose_state_ceases_stops(start: Start) -> None:
    rig = start(watchdog={"state_max_age_s": 1.0})
    rig.send_chunk(SLOW, run_id=1)
    rig.until_driven(1)
    rig.feeding = False
    rig.until_state(SafetyStatus.STOPPED, SafetyStatus.STATE_STALE)
    assert_still(rig.until_fresh_twists())


def test_a_robot_that_was_never_heard_is_waited_for(start: Start) -> None:
    rig = start(feeding=False)
    rig.send_chunk(SLOW, run_id=1)
    status = rig.until_said("run 1 waits for the robot's first joints and pose")
    assert status.state == SafetyStatus.IDLE
    assert not rig.arm and not rig.sent
    rig.feeding = True
    rig.until_driven(1)
    assert "STOPPED" not in rig.guard.output
    assert rig.guard.output.count("waits for the robot") == 1


def test_both_emergency_stops_and_their_release(start: Start) -> None:
    rig = start()
    rig.send_chunk(SLOW, run_id=1)
    rig.until_driven(1)
    rig.press(True)
    rig.until_state(SafetyStatus.STOPPED, SafetyStatus.ESTOP)
    assert_still(rig.until_fresh_twists())
    assert rig.set_estop(True).success
    refused = rig.reset()
    assert not refused.success and "still pressed" in refused.message
    assert rig.set_estop(False).success
    assert not rig.reset().success  # the topic still presses it
    rig.press(False)
    rig.until(lambda: rig.reset().success, "reset")
    rig.until_state(SafetyStatus.IDLE)


# ---- starting and leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_guard_that_is_shut_down_stops_the_robot_first(start: Start, number: signal.Signals) -> None:
    rig = start()
    rig.send_chunk(SLOW, run_id=1)
    rig.until_driven(1)
    rig.guard.signal(number)
    status = rig.until_state(SafetyStatus.STOPPED, SafetyStatus.ESTOP)
    assert status.message == "the guard was shut down"
    rig.until(lambda: not twist_values(rig.arm[-1]).any(), "zero twist")
    assert rig.guard.wait() == 0
    assert "Traceback" not in rig.guard.output


@pytest.mark.parametrize(("text", "parameters", "words"), [
    (None, [], ["no such file", "did you mean 'tabletop.yaml'"]),
    ("name: x\n", [], ["key 'base_frame' is missing"]),
    ("naem: x\n", [], ["unknown key 'naem'", "did you mean 'name'"]),
    ("", ["pace:=locksteep"], ["got 'locksteep'", "did you mean 'lockstep'"]),
    ("", ["silence_s:=-1"], ["silence_s", "got -1"]),
    ("", ["execution:=average"], ["execution", "got 'average'"]),
])
def test_what_cannot_be_used_is_refused_in_one_line(spawn: Callable[..., Any], tmp_path: Path, text: str | None,
                                                    parameters: list[str], words: list[str]) -> None:
    path = ROBOTS / "tabeltop.yaml" if text is None else ROBOTS / "tabletop.yaml"
    if text:
        path = tmp_path / "broken.yaml"
        path.write_text(text)
    guard = spawn(guard_command(path, *parameters))
    assert guard.wait() == 2
    lines = guard.output.strip().splitlines()
    assert len(lines) == 1, guard.output
    assert all(word in lines[0] for word in words), lines[0]


def test_the_guard_loads_neither_torch_nor_a_model() -> None:
    code = "import sys, vla_policy_node.guard_node; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_states_and_reasons_bear_the_numbers_of_the_message() -> None:
    for member in (*GuardState, *StopReason):
        assert getattr(SafetyStatus, member.name) == member.value

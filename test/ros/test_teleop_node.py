"""Real Joy messages in; what teleoperation and guard make of them, two processes on real topics, out."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from guard_rig import guard_command, relaxed_contract, twist_values
from processes import Spawn
from teleop_rig import (
    BACK,
    DEAD_MAN,
    ESTOP,
    FAST,
    GRIPPER,
    HAND_BACK,
    START,
    TAKE_OVER,
    TeleopRig,
    patient_mapping,
    teleop_command,
)
from vla_msgs.msg import SafetyStatus, TeleopStatus
from vla_msgs.srv import MarkRecording, StartRecording, StopRecording

from vla_policy.teleop.operator import TeleopState
from vla_policy.types import NS_PER_S

CENTRE = (0.5, 0.0, 0.3)
POLICY_ROW = [0.0, 0.005, 0.0, 0.0, 0.0, 0.0, 1.0]  # 0.1 m/s along y at 20 rows a second
POLICY_RUN = 7

Start = Callable[..., TeleopRig]


@pytest.fixture
def start(spawn: Spawn, tmp_path: Path) -> Iterator[Start]:
    """`start(robot, device=…, feeding=…)` starts guard and teleoperation and returns a rig connected to both."""
    rigs = []

    def begin(robot: str = "tabletop", *parameters: str, device: str = "joy",
              position: tuple[float, float, float] = CENTRE, feeding: bool = True, simulated: bool = False,
              until: str = "to take over") -> TeleopRig:
        path = relaxed_contract(robot, tmp_path)
        time_source = ["use_sim_time:=true"] if simulated else []
        guard = spawn(guard_command(path, *time_source))
        rig = TeleopRig(path, position, simulated)
        rigs.append(rig)
        rig.feeding, rig.guard = feeding, guard
        rig.connect()
        rig.teleop = spawn(teleop_command(f"contract:={path}", f"device:={device}", *time_source, *parameters,
                                          f"mapping:={patient_mapping(device, tmp_path)}"))
        rig.connect_teleop(until)
        return rig

    yield begin
    for rig in rigs:
        rig.close()


def until_twist(rig: TeleopRig, column: int, sign: float) -> None:
    rig.until(lambda: rig.arm and twist_values(rig.arm[-1])[column] * sign > 0.01, f"motion of column {column}")


def assert_holds(rig: TeleopRig) -> None:
    rig.until(lambda: rig.arm and not twist_values(rig.arm[-1]).any(), "standstill")
    assert not np.array(rig.until_fresh_twists(8)).any()


# ---- plain teleoperation ----------------------------------------------------------------------------------------


def test_the_dead_man_switch_drives_and_its_release_holds_without_a_latch(start: Start) -> None:
    rig = start()
    rig.hold(x=1.0)
    rig.serve(0.3)
    assert not rig.arm and not any(rig.interventions)  # a stick without the switch moves nothing
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)
    rig.until_teleop(TeleopStatus.DRIVING)
    rig.until_intervention(True)
    limit = rig.contract.limits.linear_velocity_m_s
    rig.until(lambda: twist_values(rig.arm[-1])[0] == pytest.approx(0.4 * limit), "share of the speed limit")
    rig.hold(DEAD_MAN, FAST, x=1.0)
    rig.until(lambda: twist_values(rig.arm[-1])[0] == pytest.approx(limit), "full speed")
    rig.hold(x=1.0)
    assert_holds(rig)
    rig.until_teleop(TeleopStatus.HOLDING, "to drive")
    assert rig.interventions[-1] is True  # still the operator's
    assert rig.safety[-1].state == SafetyStatus.IDLE and "the operator has control" in rig.safety[-1].message
    rig.hold(DEAD_MAN, x=-1.0)
    until_twist(rig, 0, -1)


def test_the_gripper_button_toggles_what_was_sent(start: Start) -> None:
    rig = start()
    rig.tap(GRIPPER)
    rig.until_logged("gripper: hold the dead-man switch")
    rig.hold(DEAD_MAN)
    rig.until(lambda: rig.gripper and rig.gripper[-1].opening == 1.0, "open gripper")
    rig.tap(GRIPPER)
    rig.until(lambda: rig.gripper[-1].opening == 0.0, "closed gripper")
    rig.hold()
    rig.until_teleop(TeleopStatus.HOLDING)
    rig.hold(DEAD_MAN)
    rig.until_teleop(TeleopStatus.DRIVING)
    rig.tap(GRIPPER)
    rig.until(lambda: rig.gripper[-1].opening == 1.0, "gripper that opens again")


# ---- a policy runs ----------------------------------------------------------------------------------------------


def test_the_operator_takes_over_at_once_and_hands_back(start: Start) -> None:
    rig = start()
    rig.policy_run_id, rig.policy_row = POLICY_RUN, POLICY_ROW
    until_twist(rig, 1, +1)
    rig.hold(DEAD_MAN, x=1.0)
    rig.until_intervention(True)
    until_twist(rig, 0, +1)
    seen = len(rig.sent)
    rig.serve(1.0)
    assert {msg.run_id for msg in rig.sent[seen:]} == {rig.sent[-1].run_id} != {POLICY_RUN}
    assert not any(twist_values(msg)[1] for msg in rig.arm[-10:])
    rig.hold()
    assert_holds(rig)
    rig.serve(1.0)
    assert rig.sent[-1].run_id == 0 and rig.interventions[-1] is True  # the policy goes on in vain

    handed_back_ns = rig.now_ns()
    rig.tap(HAND_BACK)
    rig.until_intervention(False)
    until_twist(rig, 1, +1)
    command = next(msg for msg in rig.sent if msg.run_id == POLICY_RUN and msg.header.stamp.sec * 10**9
                   + msg.header.stamp.nanosec > handed_back_ns)
    assert command.observation_stamp.sec * 10**9 + command.observation_stamp.nanosec > handed_back_ns
    rig.until_teleop(TeleopStatus.OFF)
    assert rig.safety[-1].state in (SafetyStatus.ACTIVE, SafetyStatus.LIMITING)


def test_the_take_over_button_holds_the_arm_without_the_switch(start: Start) -> None:
    rig = start()
    rig.policy_run_id, rig.policy_row = POLICY_RUN, POLICY_ROW
    until_twist(rig, 1, +1)
    rig.tap(TAKE_OVER)
    rig.until_intervention(True)
    assert_holds(rig)
    rig.until_teleop(TeleopStatus.HOLDING)
    assert rig.safety[-1].state == SafetyStatus.IDLE


# ---- other devices and robots -----------------------------------------------------------------------------------


def test_a_spacemouse_drives_by_its_twist_and_its_own_button(start: Start) -> None:
    rig = start(device="spacemouse", until="is silent")
    rig.press_spacemouse()
    rig.cap = Twist()
    rig.until_teleop(TeleopStatus.OFF, "to take over")
    rig.press_spacemouse(0)  # told once; the twist goes on
    rig.cap.linear.z = -1.0
    until_twist(rig, 2, -1)
    rig.serve(1.0)
    until_twist(rig, 2, -1)
    rig.press_spacemouse()
    assert_holds(rig)
    rig.press_spacemouse(0)
    until_twist(rig, 2, -1)
    rig.cap = None
    rig.until_logged("the spacemouse on /spacenav/twist was silent")
    assert_holds(rig)


def test_a_pose_robot_is_moved_from_where_it_stands_and_holds_there(start: Start) -> None:
    rig = start("franka", position=(0.5, 0.1, 0.4))
    rig.hold(DEAD_MAN, x=1.0)
    rig.until(lambda: rig.arm and rig.arm[-1].pose.position.x > 0.52, "motion")
    first = rig.arm[0].pose.position
    assert first.x < 0.51 and (first.y, first.z) == pytest.approx((0.1, 0.4))
    rig.hold()
    rig.until_teleop(TeleopStatus.HOLDING)
    seen = len(rig.arm)
    rig.until(lambda: len(rig.arm) > seen + 5, "held poses")
    assert len({msg.pose.position.x for msg in rig.arm[seen + 1:]}) == 1
    assert rig.safety[-1].state == SafetyStatus.IDLE


def test_a_leader_must_be_near_and_is_then_followed(start: Start) -> None:
    rig = start("so101", device="leader", until="is silent")
    names = rig.contract.action.joints
    rig.leader = {**dict.fromkeys(names, 0.0), "gripper": -0.1745, "wrist_flex": 0.6}
    rig.until_teleop(TeleopStatus.OFF, "to take over")
    rig.hold(DEAD_MAN)
    rig.until_logged("the leader is not where the follower is: got wrist_flex +0.60 rad, expected at most 0.15 rad")
    rig.serve(0.3)
    assert not rig.arm
    rig.leader["wrist_flex"] = 0.0
    rig.hold()
    rig.until_teleop(TeleopStatus.OFF, "to take over")
    rig.hold(DEAD_MAN)
    rig.until_teleop(TeleopStatus.DRIVING)
    rig.leader["shoulder_pan"] = 0.3
    rig.until(lambda: rig.arm and rig.arm[-1].data[0] > 0.29, "follower at its leader")
    steps = np.diff([msg.data[0] for msg in rig.arm])
    assert np.abs(steps).max() <= rig.contract.limits.joint_velocity[0] / rig.contract.control_rate_hz + 1e-9
    rig.leader["gripper"] = 1.7453
    rig.until(lambda: rig.gripper[-1].data[0] == pytest.approx(1.7453), "open gripper")


# ---- what goes wrong --------------------------------------------------------------------------------------------


def test_a_joy_that_falls_silent_counts_as_released(start: Start) -> None:
    rig = start()
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)
    rig.joy_speaks = False
    rig.until_logged("the joy on /joy was silent for more than 2 s with the dead-man switch held")
    assert_holds(rig)
    status = rig.until_teleop(TeleopStatus.HOLDING, "silent")
    assert not status.device_alive
    assert rig.safety[-1].state == SafetyStatus.IDLE  # no latch
    rig.joy_speaks = True
    rig.until_logged("the joy on /joy speaks again")
    assert_holds(rig)  # the switch is still held, but must be pressed anew
    rig.hold()
    rig.until_teleop(TeleopStatus.HOLDING, "hold the dead-man")
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)
    assert rig.teleop.output.count("was silent") == rig.teleop.output.count("speaks again") == 1


@pytest.mark.parametrize(("axes", "buttons", "words"), [(6, 11, "got 6 axes, expected 8"),
                                                        (8, 12, "got 12 buttons, expected 11")])
def test_another_gamepad_is_refused_and_the_arm_holds(start: Start, axes: int, buttons: int, words: str) -> None:
    rig = start()
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)
    rig.axes, rig.buttons = [1.0] * axes, [1] * buttons
    rig.until_logged(words)
    assert_holds(rig)
    status = rig.until_teleop(TeleopStatus.HOLDING, words)
    assert "/joy" in status.message and not status.device_alive
    assert rig.teleop.output.count(words) == 1
    rig.hold()
    rig.until_teleop(TeleopStatus.HOLDING, "hold the dead-man")


def test_a_teleoperation_that_is_killed_while_driving_latches_the_guard(start: Start) -> None:
    rig = start("tabletop", "reach_s:=0.5")
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)
    rig.teleop.signal(signal.SIGKILL)
    status = rig.until_state(SafetyStatus.STOPPED, SafetyStatus.CHUNK_STALE)
    assert "is the teleoperation dead or too slow?" in status.message
    assert_holds(rig)
    assert rig.interventions[-1] is True


def test_a_teleoperation_that_leaves_lets_go_of_the_arm(start: Start) -> None:
    rig = start()
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)
    rig.teleop.signal(signal.SIGINT)
    assert rig.teleop.wait() == 0
    assert_holds(rig)
    assert rig.safety[-1].state == SafetyStatus.IDLE
    assert "Traceback" not in rig.teleop.output


def test_the_emergency_stop_button_and_the_way_out(start: Start) -> None:
    rig = start()
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)
    rig.tap(ESTOP)
    rig.until_state(SafetyStatus.STOPPED, SafetyStatus.ESTOP)
    assert_holds(rig)
    rig.until_teleop(TeleopStatus.BLOCKED, "emergency stop requested")
    rig.tap(BACK, HAND_BACK)  # the chord that resets, and not the button that hands back
    rig.until_state(SafetyStatus.IDLE)
    assert rig.interventions[-1] is True
    assert_holds(rig)  # the switch was held all the time
    rig.hold()
    rig.until_teleop(TeleopStatus.HOLDING, "hold the dead-man")
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)


def test_a_clock_that_jumps_stops_the_operator_as_it_stops_a_policy(start: Start) -> None:
    rig = start(simulated=True)
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)
    rig.time_offset_ns -= NS_PER_S
    status = rig.until_state(SafetyStatus.STOPPED, SafetyStatus.CLOCK_JUMP)
    assert "time went back" in status.message
    assert_holds(rig)
    rig.until_teleop(TeleopStatus.BLOCKED, "time went back")


def test_a_robot_that_is_not_heard_moves_nothing(start: Start) -> None:
    rig = start(feeding=False, until="state is missing")
    rig.hold(DEAD_MAN, x=1.0)
    rig.until_logged("the arm holds: the robot's state is missing, expected joints and pose")
    rig.serve(0.5)
    assert not rig.arm and not any(rig.interventions)
    rig.hold()
    rig.until_teleop(TeleopStatus.OFF, "the robot's state is missing")
    rig.feeding = True
    rig.until_teleop(TeleopStatus.OFF, "to take over")
    rig.hold(DEAD_MAN, x=1.0)
    until_twist(rig, 0, +1)


# ---- the recorder -----------------------------------------------------------------------------------------------


def test_buttons_call_the_recorder_and_tell_its_answer(start: Start) -> None:
    rig = start("tabletop", "instruction:=lift the red block", "operator:=ada")
    rig.tap(START)
    rig.until_logged("record_start: nobody offers /vla/record/start; is recorder_node running")
    rig.offer_recorder()
    rig.until(lambda: rig.node.count_clients("/vla/record/mark"), "client of the recorder")
    rig.serve(1.0)
    rig.tap(START)
    rig.until_logged("record_start: recording 7")
    for buttons, words in (((BACK, GRIPPER), "record_success"), ((BACK, ESTOP), "record_failure"),
                           ((BACK, TAKE_OVER), "record_discard"), ((BACK, START), "record_stop")):
        rig.tap(*buttons)
        rig.until_logged(f"{words}: nothing is being recorded")
    started, success, failure, discarded, stopped = rig.asked
    assert (started.instruction, started.operator_name) == ("lift the red block", "ada")
    assert isinstance(started, StartRecording.Request)
    assert (success.outcome, failure.outcome) == (MarkRecording.Request.SUCCESS, MarkRecording.Request.FAILURE)
    assert isinstance(discarded, StopRecording.Request) and discarded.discard and not stopped.discard
    assert rig.safety[-1].state == SafetyStatus.IDLE and not any(rig.interventions)


# ---- starting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parameters", "words"), [
    (["contract:=tabeltop"], ["got 'tabeltop'", "did you mean 'tabletop'"]),
    (["contract:=''"], ["parameter 'contract'", "got nothing"]),
    (["contract:=tabletop", "device:=joi"], ["parameter 'device'", "got 'joi'", "did you mean 'joy'"]),
    (["contract:=tabletop", "pace:=lockstep"], ["an operator cannot be waited for", "pace:=realtime"]),
    (["contract:=tabletop", "mapping:=joi"], ["got 'joi'", "did you mean 'joy'"]),
    (["contract:=tabletop", "mapping:=spacemouse"], ["device: got spacemouse, expected joy"]),
    (["contract:=tabletop", "device:=leader"], ["a leader arm drives joints", "ee_delta"]),
    (["contract:=tabletop", "reach_s:=-1"], ["reach_s", "got -1"]),
])
def test_what_cannot_be_used_is_refused_in_one_line(spawn: Spawn, parameters: list[str], words: list[str]) -> None:
    process = spawn(teleop_command(*parameters))
    assert process.wait() == 2
    (line,) = process.output.strip().splitlines()
    assert all(word in line for word in words), line


def test_states_bear_the_numbers_of_the_message() -> None:
    for member in TeleopState:
        assert getattr(TeleopStatus, member.name) == member.value



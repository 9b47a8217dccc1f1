"""The scripted operator without ROS: what it plays is what it wants, and by it a task is done."""

from __future__ import annotations

import numpy as np
import pytest

from sim_bridges.operator.gamepad import Gamepad
from sim_bridges.operator.hands import ScriptedHands
from sim_bridges.operator.session import PATIENCE_S, PRESS_S, Limits, Session, Step
from sim_bridges.tabletop.sim import TabletopSim
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError
from vla_policy.resources import find_contract, find_teleop
from vla_policy.teleop.mapping import Device, PadMapping, load_mapping
from vla_policy.teleop.pad import PadReader
from vla_policy.teleop.planner import TwistPlanner
from vla_policy.teleop.wish import Press
from vla_policy.types import Command

DT_NS = 50_000_000


@pytest.fixture(scope="module")
def contract() -> RobotContract:
    return load_contract(find_contract("tabletop"))


@pytest.fixture(scope="module")
def mapping(contract: RobotContract) -> PadMapping:
    return load_mapping(Device.JOY, find_teleop("joy"), contract)


def heard(mapping: PadMapping, contract: RobotContract, axes: list[float], buttons: list[int]) -> np.ndarray:
    """The twist that the teleoperation makes of a Joy message; nothing unless the dead-man switch is held."""
    reader = PadReader(mapping, contract)
    reader.hear_axes(axes)
    reader.buttons.hear(buttons)
    wish = reader.wish()
    rows = TwistPlanner(contract).rows(wish, None, np.zeros(1), 0.0)
    return rows[0] / (contract.action_dt_ns / 1e9) if wish.dead_man else np.zeros(6)


def test_the_teleoperation_hears_the_twist_that_is_played(contract: RobotContract, mapping: PadMapping) -> None:
    pad = Gamepad(mapping, contract)
    rng = np.random.default_rng(0)
    for _ in range(50):
        twist = np.concatenate([rng.uniform(-0.2, 0.2, 3), rng.uniform(-0.5, 0.5, 3)])
        assert np.allclose(heard(mapping, contract, pad.axes(twist), pad.buttons({"dead_man"})), twist, atol=1e-9)
    assert not heard(mapping, contract, pad.axes(np.full(6, 0.1)), pad.buttons(set())).any()
    fast = heard(mapping, contract, pad.axes(np.array([9.0, 0, 0, 0, 0, 0])), pad.buttons({"dead_man"}))
    assert np.allclose(fast, [contract.limits.linear_velocity_m_s, 0, 0, 0, 0, 0])


def test_what_is_pressed_is_what_the_mapping_names(contract: RobotContract, mapping: PadMapping) -> None:
    pad = Gamepad(mapping, contract)
    for name, press in (("record_start", Press.RECORD_START), ("record_stop", Press.RECORD_STOP),
                        ("record_failure", Press.RECORD_FAILURE), ("reset_guard", Press.RESET_GUARD)):
        reader = PadReader(mapping, contract)
        reader.buttons.hear(pad.buttons(set()))
        reader.buttons.hear(pad.buttons({name}))
        assert reader.buttons.take_presses() == [press]


def test_a_gamepad_for_another_robot_or_without_buttons_is_refused(
    contract: RobotContract, mapping: PadMapping
) -> None:
    with pytest.raises(ConfigError, match="expected one that is moved by the tool"):
        Gamepad(mapping, load_contract(find_contract("so101")))
    press = mapping.press.model_copy(update={"record_stop": None, "gripper": None})
    with pytest.raises(ConfigError, match="without gripper, record_stop"):
        Gamepad(mapping.model_copy(update={"press": press}), contract)


def test_by_what_is_played_the_task_is_done(contract: RobotContract, mapping: PadMapping) -> None:
    """Eyes, hands and gamepad against the simulator alone; three of four scenes at least, though the hand wanders."""
    sim, hands, pad = TabletopSim(8), ScriptedHands(wander_m=0.001), Gamepad(mapping, contract)
    won = 0
    for seed in range(4):
        assert hands.begin("bring_to_lamp", seed) == sim.reset("bring_to_lamp", seed)
        for _ in range(120):
            twist, wants_open = hands.look(sim.state())
            played = heard(mapping, contract, pad.axes(twist), pad.buttons({"dead_man"}))
            sim.advance(Command(sim.time_ns, played, float(wants_open)), DT_NS)
            if sim.success():
                break
        won += sim.success()
    assert won >= 3
    with pytest.raises(VlaError, match="not of this simulator"):
        hands.look(np.zeros(3))
    sim.close()


def held(session: Session, now_s: float) -> set[str]:
    return session.hold(now_s)


def test_a_session_records_drives_lingers_and_ends() -> None:
    session = Session(Limits(time_limit_s=10.0, linger_s=0.4))
    assert held(session, 0.0) == set() and held(session, PRESS_S) == {"record_start"}
    assert held(session, 3 * PRESS_S) == set()  # let go, or a later press would be none
    session.hear_recording(False, 0.5)
    assert session.step is Step.ASKING
    session.hear_recording(True, 1.0)
    assert held(session, 1.1) == {"dead_man"} and session.drives
    session.hear_success(2.0)
    assert held(session, 2.3) == {"dead_man"}
    assert held(session, 2.5) == set() and session.step is Step.LETTING_GO
    held(session, 2.5 + 1.1 * PRESS_S)
    assert session.step is Step.ENDING and held(session, 2.5 + 2.3 * PRESS_S) == {"record_stop"}
    session.hear_recording(False, 4.0)
    assert session.is_over and session.succeeded and not session.problem


def test_a_session_that_fails_says_so_to_the_recorder() -> None:
    session = Session(Limits(time_limit_s=1.0))
    session.hear_recording(True, 0.0)
    held(session, 0.5)
    held(session, 1.2)
    assert session.step is Step.LETTING_GO and "not done within 1 s" in session.problem
    held(session, 1.2 + 1.1 * PRESS_S)
    assert session.step is Step.MARKING and held(session, 1.2 + 2.3 * PRESS_S) == {"record_failure"}
    session = Session(Limits())
    held(session, 0.0)
    held(session, PATIENCE_S + 0.1)
    assert session.is_over and "no answer within" in session.problem
    session = Session(Limits())
    session.hear_recording(True, 0.0)
    session.fail("the guard stopped: a reason", 0.1)
    session.fail("another", 0.2)
    assert not session.drives and session.problem == "the guard stopped: a reason"


def test_the_gripper_is_pressed_once_until_it_was_seen_to_act() -> None:
    session = Session(Limits())
    session.hear_recording(True, 0.0)
    assert not session.wants_press(True, None, 0.1) and not session.wants_press(True, 1.0, 0.1)
    assert session.wants_press(False, 1.0, 0.2)
    assert not session.wants_press(False, 1.0, 0.3)  # under way
    assert not session.wants_press(False, 0.0, 0.4)  # has acted
    assert session.wants_press(False, 1.0, 0.6)  # was not heard: again

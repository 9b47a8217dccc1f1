"""An operator's take-over in the middle of a real policy's run in; a run that goes on after the hand-back out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import write_bundle
from guard_rig import guard_command, twist_values
from policy_rig import PolicyRig, patient_contract, policy_command
from processes import Spawn
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from teleop_rig import AXES, BUTTONS, DEAD_MAN, DEVICE_PERIOD_S, HAND_BACK, X, patient_mapping, teleop_command
from vla_msgs.msg import PolicyStatus, SafetyStatus, TeleopStatus

from vla_policy.messages import stamp_to_ns
from vla_policy.run import EndReason
from vla_policy_node.pace import LATCHED, RELIABLE

SENTENCE = "open the drawer"
SILENCE_S = 2.0  # of the guard towards the policy; the operator drives for longer


@pytest.fixture
def rig(spawn: Spawn, tmp_path: Path) -> Iterator[PolicyRig]:
    """A stand-in for the robot, with guard, policy and teleoperation as processes and a gamepad `rig.joy`."""
    contract = patient_contract("tabletop", tmp_path, silence_s=SILENCE_S)
    bundle = write_bundle(tmp_path / "bundle", contract, [SENTENCE])
    spawn(guard_command(contract))
    spawn(policy_command(contract, bundle))
    rig = PolicyRig(contract)
    rig.joy = Joy(axes=[0.0] * AXES, buttons=[0] * BUTTONS)
    rig.interventions, teleop_words = [], []
    publisher = rig.node.create_publisher(Joy, "/joy", RELIABLE)
    rig.node.create_timer(DEVICE_PERIOD_S, lambda: publisher.publish(rig.joy))
    rig.node.create_subscription(Bool, "/vla/intervention", lambda msg: rig.interventions.append(msg.data), LATCHED)
    rig.node.create_subscription(TeleopStatus, "/vla/teleop/status", lambda msg: teleop_words.append(msg.message),
                                 LATCHED)
    teleop = spawn(teleop_command(f"contract:={contract}", f"mapping:={patient_mapping('joy', tmp_path)}"))
    teleop.wait_for("drives tabletop while")
    rig.until_idle()
    # A switch that was never seen released moves nothing; nor does one without a guard or a robot.
    rig.until(lambda: teleop_words and teleop_words[-1].endswith("to take over"), "teleoperation that is ready")
    yield rig
    rig.close()


def hold(rig: PolicyRig, *buttons: int, x: float = 0.0) -> None:
    axes = [0.0] * AXES
    axes[X] = x
    rig.joy = Joy(axes=axes, buttons=[int(index in buttons) for index in range(BUTTONS)])


def test_a_run_outlives_an_intervention_and_goes_on_with_what_it_sees_then(rig: PolicyRig) -> None:
    goal = rig.send(SENTENCE)
    run_id = goal.running().run_id
    rig.until(lambda: any(msg.run_id == run_id for msg in list(rig.sent)), "command of the run")

    hold(rig, DEAD_MAN, x=1.0)
    rig.until(lambda: rig.interventions and rig.interventions[-1], "intervention")
    inferences = goal.feedback[-1].inferences
    began_s = time.monotonic()
    rig.until(lambda: time.monotonic() - began_s > 2 * SILENCE_S, "passing of time")
    rig.until(lambda: goal.feedback[-1].inferences > inferences, "inference while the operator drives")
    assert rig.sent[-1].run_id not in (0, run_id)
    assert twist_values(rig.arm[-1])[0] > 0.01
    assert rig.statuses[-1].state == PolicyStatus.RUNNING and rig.statuses[-1].run_id == run_id

    hold(rig)
    rig.until(lambda: rig.sent[-1].run_id == 0, "arm that is held")
    handed_back_ns = rig.now_ns()
    hold(rig, HAND_BACK)
    rig.until(lambda: not rig.interventions[-1], "hand-back")
    rig.until(lambda: rig.sent[-1].run_id == run_id, "command of the run that goes on")
    assert stamp_to_ns(rig.sent[-1].observation_stamp) > handed_back_ns
    assert rig.safety[-1].state in (SafetyStatus.ACTIVE, SafetyStatus.LIMITING)

    goal.handle.cancel_goal_async()
    assert EndReason(goal.result().reason) is EndReason.CANCELED

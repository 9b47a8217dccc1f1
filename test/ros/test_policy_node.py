"""The policy node beside a guard on real topics: how runs begin, how each of them ends, and that nothing moves then."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import write_bundle
from guard_rig import guard_command
from policy_rig import Goal, PolicyRig, patient_contract, policy_command
from processes import Spawn
from vla_msgs.msg import EpisodeEvent, PolicyStatus, SafetyStatus

from vla_policy.run import EndReason

OPEN, CLOSE = "open the drawer", "close the drawer"


class Nodes:
    """Guard and policy as processes, and the rig that plays their robot and their client."""

    def __init__(self, spawn: Spawn, folder: Path) -> None:
        self.contract = patient_contract("tabletop", folder)
        self.bundle = write_bundle(folder / "bundle", self.contract, (OPEN, CLOSE))
        self.rig = PolicyRig(self.contract)
        self.guard = spawn(guard_command(self.contract))
        self.policy = spawn(policy_command(self.contract, self.bundle, "observation_timeout_s:=3.0"))


@pytest.fixture(scope="module")
def nodes(spawn_shared: Spawn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    nodes = Nodes(spawn_shared, tmp_path_factory.mktemp("nodes"))
    yield nodes
    nodes.rig.close()


@pytest.fixture
def rig(nodes: Nodes) -> PolicyRig:
    """The rig, with every stream on, the guard not latched and no run."""
    nodes.rig.silent.clear()
    nodes.rig.encodings.clear()
    nodes.rig.until_idle()
    nodes.rig.press(False)
    nodes.rig.reset()
    return nodes.rig


def assert_ended(goal: Goal, reason: EndReason, *words: str) -> None:
    result = goal.result()
    assert EndReason(result.reason) is reason, result.message
    assert all(word in result.message for word in words), result.message


# ---- how a run ends ---------------------------------------------------------------------------------------------


def test_a_run_moves_the_robot_until_its_time_limit(rig: PolicyRig) -> None:
    goal = rig.send(OPEN, time_limit_s=2.0)
    assert goal.accepted
    rig.until_moving()
    feedback = goal.running()
    assert_ended(goal, EndReason.TIME_LIMIT, "2 s")
    result = goal.result()
    assert result.run_id == feedback.run_id > 0
    assert result.inferences >= feedback.inferences >= 1
    assert result.duration.sec == 2 or result.duration.nanosec >= 975_000_000
    status = rig.until_run(OPEN)
    assert status.state == PolicyStatus.RUNNING and status.run_id == result.run_id
    assert status.model_ms > 0.0 and status.history_frames == 1
    rig.assert_still()


def test_an_episode_event_of_success_ends_the_run(rig: PolicyRig) -> None:
    goal = rig.send(OPEN)
    goal.running()
    rig.tell(EpisodeEvent.SUCCESS, "the drawer is open")
    assert_ended(goal, EndReason.SUCCEEDED, "the drawer is open")
    rig.assert_still()


def test_an_episode_event_of_failure_ends_the_run(rig: PolicyRig) -> None:
    goal = rig.send(OPEN)
    goal.running()
    rig.tell(EpisodeEvent.FAILURE)
    assert_ended(goal, EndReason.FAILED, "drawer: failed")


def test_one_run_at_a_time_until_its_client_cancels_it(nodes: Nodes, rig: PolicyRig) -> None:
    goal = rig.send(OPEN)
    assert not rig.send(CLOSE).accepted
    rig.say(CLOSE)
    nodes.policy.wait_for("/instruction 'close the drawer' refused: a /vla/run client owns the run")
    run_id = goal.running().run_id
    cancel = goal.handle.cancel_goal_async()
    rig.until(cancel.done, "answer to a cancel")
    assert_ended(goal, EndReason.CANCELED, "by the client")
    assert goal.result().run_id == run_id
    assert_ended(rig.send(CLOSE, time_limit_s=0.2), EndReason.TIME_LIMIT)
    rig.assert_still()


def test_an_unknown_word_moves_nothing(rig: PolicyRig) -> None:
    count = len(rig.sent)
    goal = rig.send("open the teapot")
    assert_ended(goal, EndReason.INSTRUCTION_REFUSED, "teapot")
    assert goal.result().inferences == 0
    assert not any(msg.run_id for msg in rig.sent[count:])


# ---- /instruction -----------------------------------------------------------------------------------------------


def test_a_new_instruction_begins_a_new_history_and_an_unknown_one_stops(nodes: Nodes, rig: PolicyRig) -> None:
    rig.statuses.clear()
    rig.say(OPEN)
    first = rig.until_run(OPEN)
    rig.until(lambda: rig.statuses[-1].history_frames >= 3, "history of three frames")
    rig.say(CLOSE)
    second = rig.until_run(CLOSE)
    assert second.run_id > first.run_id
    assert second.history_frames == second.inferences == 1
    rig.say("close the teapot")
    nodes.policy.wait_for("INSTRUCTION_REFUSED.*teapot")
    rig.assert_still()
    assert rig.safety[-1].state == SafetyStatus.IDLE  # ended, not latched


def test_a_scene_that_is_reset_in_the_middle_of_a_run_begins_a_new_history(rig: PolicyRig) -> None:
    rig.statuses.clear()
    rig.say(OPEN)
    run_id = rig.until_run(OPEN).run_id
    rig.until(lambda: rig.statuses[-1].history_frames >= 3, "history of three frames")
    seen = len(rig.statuses)
    rig.tell(EpisodeEvent.START)
    rig.until(lambda: any(s.history_frames == 1 and s.run_id == run_id for s in rig.statuses[seen:]), "new history")
    rig.say("")
    rig.assert_still()


def test_an_empty_instruction_ends_the_run(nodes: Nodes, rig: PolicyRig) -> None:
    rig.say(OPEN)
    rig.until_moving()
    rig.say("")
    nodes.policy.wait_for("CANCELED: an empty /instruction came")
    rig.assert_still()


# ---- the guard --------------------------------------------------------------------------------------------------


def test_a_latched_guard_ends_the_run_and_refuses_the_next_until_it_is_reset(rig: PolicyRig) -> None:
    goal = rig.send(OPEN)
    rig.until_moving()
    rig.press(True)
    assert_ended(goal, EndReason.SAFETY_STOP, "emergency stop", "/vla/safety/reset")
    rig.assert_still()
    assert_ended(rig.send(OPEN), EndReason.SAFETY_STOP, "the guard is latched", "/vla/safety/reset")
    rig.press(False)
    assert_ended(rig.send(OPEN), EndReason.SAFETY_STOP, "/vla/safety/reset")  # released is not reset
    rig.reset()
    goal = rig.send(OPEN, time_limit_s=0.4)
    rig.until_moving()
    assert_ended(goal, EndReason.TIME_LIMIT)


# ---- cameras ----------------------------------------------------------------------------------------------------


def test_a_camera_that_stops_is_named_and_the_robot_held(rig: PolicyRig) -> None:
    goal = rig.send(OPEN)
    rig.until_moving()
    rig.silent.add("static")
    assert_ended(goal, EndReason.OBSERVATION_LOST, "camera.static", "/camera/static/image_raw")
    assert "wrist" not in goal.result().message
    assert any("camera.static" in feedback.status for feedback in goal.feedback)  # told before it ended
    rig.assert_still()
    rig.silent.clear()
    goal = rig.send(OPEN, time_limit_s=0.4)
    assert_ended(goal, EndReason.TIME_LIMIT)


def test_a_wrong_encoding_ends_the_run_in_words(rig: PolicyRig) -> None:
    rig.encodings["static"] = "16UC1"
    goal = rig.send(OPEN)
    assert_ended(goal, EndReason.OBSERVATION_INVALID, "/camera/static/image_raw", "16UC1", "rgb8")
    rig.assert_still()


# ---- lifecycle --------------------------------------------------------------------------------------------------


def lifecycle(*words: str) -> str:
    command = ["ros2", "lifecycle", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_lifecycle_by_hand(rig: PolicyRig) -> None:
    assert "active [3]" in lifecycle("get", "/policy_node")
    goal = rig.send(OPEN)
    rig.until_moving()
    lifecycle("set", "/policy_node", "deactivate")
    assert_ended(goal, EndReason.DEACTIVATED)
    rig.assert_still()
    assert not rig.send(OPEN).accepted
    lifecycle("set", "/policy_node", "cleanup")
    assert "unconfigured [1]" in lifecycle("get", "/policy_node")
    assert not rig.send(OPEN).accepted
    lifecycle("set", "/policy_node", "configure")
    assert not rig.send(OPEN).accepted
    lifecycle("set", "/policy_node", "activate")
    goal = rig.send(OPEN, time_limit_s=0.4)
    rig.until_moving()
    assert_ended(goal, EndReason.TIME_LIMIT)


# ---- without a guard; it ends the guard, so it comes last -------------------------------------------------------


def test_without_a_guard_no_run_lasts(nodes: Nodes, rig: PolicyRig) -> None:
    goal = rig.send(OPEN)
    goal.running()
    nodes.guard.signal(signal.SIGKILL)
    assert_ended(goal, EndReason.SAFETY_STOP, "no guard speaks on /vla/safety")
    assert_ended(rig.send(OPEN), EndReason.SAFETY_STOP, "no guard speaks on /vla/safety", "start guard_node")

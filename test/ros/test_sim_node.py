"""The simulator node on real topics: time that waits in lockstep, scenes by seed, refusals, and realtime."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from guard_rig import ROBOTS
from policy_rig import DEADLINE_S
from processes import Spawn
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from vla_msgs.msg import EpisodeEvent, GripperCommand
from vla_msgs.srv import ResetSim

from sim_bridges.registry import make_sim
from vla_policy.contract import load_contract
from vla_policy.messages import image_to_array, joint_state_to_array, stamp_to_ns
from vla_policy_node.messages import make_header
from vla_policy_node.pace import LATCHED, RELIABLE

CONTRACT = ROBOTS / "tabletop.yaml"


def sim_command(*parameters: str) -> list[str]:
    options = [word for setting in (f"contract:={CONTRACT}", *parameters) for word in ("-p", setting)]
    return [sys.executable, "-m", "sim_bridges.sim_node", "--ros-args", *options]


class SimRig:
    """A client of the simulator that keeps everything it publishes."""

    def __init__(self) -> None:
        self.contract = load_contract(CONTRACT)
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        node = self.node = rclpy.create_node("rig", context=self.context)
        self.heard: dict[str, list[Any]] = {}
        camera_topics = {name: camera.topic for name, camera in self.contract.cameras.items()}
        topics = {
            "clock": (Clock, "/clock"),
            "joints": (JointState, "/joint_states"),
            "pose": (PoseStamped, "/tcp_pose"),
            **{name: (Image, topic) for name, topic in camera_topics.items()},
        }
        for name, (kind, topic) in topics.items():
            self.heard[name] = []
            node.create_subscription(kind, topic, self.heard[name].append, RELIABLE)
        self.heard["episode"] = []
        node.create_subscription(EpisodeEvent, "/vla/episode", self.heard["episode"].append, LATCHED)
        self._arm = node.create_publisher(TwistStamped, "/arm/twist_command", RELIABLE)
        self._gripper = node.create_publisher(GripperCommand, "/gripper/command", RELIABLE)
        self._reset = node.create_client(ResetSim, "/sim/reset")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, f"no {what} within {DEADLINE_S} s"
            time.sleep(0.01)

    def until_ready(self) -> None:
        self.until(
            lambda: (
                self._reset.service_is_ready()
                and all(self.heard[name] for name in ("joints", "wrist", "pose"))
                and self._arm.get_subscription_count()
                and self._gripper.get_subscription_count()
            ),
            "simulator",
        )

    def reset(self, task: str, seed: int) -> ResetSim.Response:
        answer = self._reset.call_async(ResetSim.Request(task=task, seed=seed))
        self.until(answer.done, "answer to a reset")
        return answer.result()

    def at(self, name: str, stamp_ns: int) -> Any:
        """The message of a stream with this stamp, once it has come."""

        def found() -> list[Any]:
            return [msg for msg in list(self.heard[name]) if stamp_to_ns(msg.header.stamp) == stamp_ns]

        self.until(found, f"{name} of the instant {stamp_ns}")
        return found()[0]

    def command(self, stamp_ns: int, z_m_s: float = 0.0) -> None:
        """A twist along z and an open gripper for an instant."""
        twist = TwistStamped(header=make_header(stamp_ns, self.contract.base_frame))
        twist.twist.linear.z = z_m_s
        self._arm.publish(twist)
        self._gripper.publish(GripperCommand(header=make_header(stamp_ns, ""), opening=1.0))

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(DEADLINE_S)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def rig(ros_env: dict[str, str]) -> Iterator[SimRig]:
    rig = SimRig()
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def waiting(spawn_shared: Spawn) -> Iterator[SimRig]:
    """A simulator in lockstep and its client."""
    spawn_shared(sim_command("pace:=lockstep", "task:=open_drawer", "seed:=3"))
    rig = SimRig()
    rig.until_ready()
    yield rig
    rig.close()


# ---- realtime and starting; first, before the simulator of the other tests is there -----------------------------


def test_realtime_goes_on_while_nobody_commands(spawn: Spawn, rig: SimRig) -> None:
    process = spawn(sim_command("pace:=realtime"))
    rig.until_ready()
    start = rig.heard["pose"][-1]
    count = len(rig.heard["wrist"])
    rig.until(lambda: len(rig.heard["wrist"]) >= count + 10, "images")
    stamps = [stamp_to_ns(msg.header.stamp) for msg in rig.heard["wrist"]]
    assert stamps == sorted(set(stamps))
    assert abs(stamps[-1] - rig.node.get_clock().now().nanoseconds) < 10 * 10**9  # system time
    assert not rig.heard["clock"]
    rest = rig.heard["pose"][-1]
    assert rest.pose.position.z == pytest.approx(start.pose.position.z, abs=2e-3)
    process.process.terminate()
    assert process.wait() == 0
    assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("parameters", "env", "words"),
    [
        (["sim:=tabeltop"], {}, ["sim: got 'tabeltop'", "did you mean 'tabletop'"]),
        (["task:=open_drawr"], {}, ["open_drawr", "did you mean 'open_drawer'"]),
        (["pace:=locksteep"], {}, ["pace: got 'locksteep'", "did you mean 'lockstep'"]),
        ([], {"MUJOCO_GL": "egll"}, ["MUJOCO_GL", "egll", "osmesa"]),
        (["sim:=calvin", f"contract:={ROBOTS / 'calvin.yaml'}"], {"CALVIN_ROOT": "/nowhere"},
         ["CALVIN_ROOT=/nowhere", "got no such folder", "git clone"]),
        (["sim:=calvin"], {}, ["tabletop: base_frame", "expected world", "use config/robots/calvin.yaml"]),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(
    spawn: Spawn, parameters: list[str], env: dict[str, str], words: list[str]
) -> None:
    process = spawn(sim_command(*parameters), env=env)
    assert process.wait() == 1
    assert "Traceback" not in process.output
    (line,) = [line for line in process.output.splitlines() if "ERROR" in line]
    assert all(word in line for word in words), line


# ---- lockstep ---------------------------------------------------------------------------------------------------


def test_time_waits_for_the_command_of_its_instant(waiting: SimRig) -> None:
    dt_ns = waiting.contract.control_dt_ns
    start_ns = stamp_to_ns(waiting.reset("open_drawer", 3).stamp)
    waiting.at("wrist", start_ns)
    waiting.command(start_ns - dt_ns)  # for an instant that is over
    waiting.command(start_ns + dt_ns)  # for one that is yet to come
    repeated = len(waiting.heard["joints"])
    waiting.until(lambda: len(waiting.heard["joints"]) >= repeated + 2, "repetition of a waiting simulator")
    assert {stamp_to_ns(msg.header.stamp) for msg in waiting.heard["joints"][repeated:]} == {start_ns}
    height_m = waiting.at("pose", start_ns).pose.position.z
    for tick in range(4):
        waiting.command(start_ns + tick * dt_ns, z_m_s=0.2)
        waiting.at("wrist", start_ns + (tick + 1) * dt_ns)
    assert waiting.at("pose", start_ns + 4 * dt_ns).pose.position.z > height_m + 0.01
    assert stamp_to_ns(waiting.heard["clock"][-1].clock) == start_ns + 4 * dt_ns


def test_a_scene_is_what_the_simulator_shows_in_process_and_the_same_again(waiting: SimRig) -> None:
    sim = make_sim("tabletop", waiting.contract)
    instruction = sim.reset("lift_red_block", 11).instruction
    expected = sim.observe()
    sim.close()
    stamps = []
    for task, seed in (("lift_red_block", 11), ("close_drawer", 4), ("lift_red_block", 11)):
        answer = waiting.reset(task, seed)
        assert answer.success, answer.message
        stamps.append(stamp_to_ns(answer.stamp))
        if task == "close_drawer":
            continue
        assert answer.instruction == instruction
        for name, camera in waiting.contract.cameras.items():
            assert np.array_equal(image_to_array(waiting.at(name, stamps[-1]), camera), expected.images[name])
        joints = joint_state_to_array(waiting.at("joints", stamps[-1]), waiting.contract.joints.names, "")
        assert np.array_equal(joints, expected.joints)
    assert stamps == sorted(set(stamps))  # stamps grow over resets
    event = waiting.heard["episode"][-1]
    assert (event.event, event.task, event.seed, event.instruction) == (
        EpisodeEvent.START,
        "lift_red_block",
        11,
        instruction,
    )
    assert stamp_to_ns(event.header.stamp) == stamps[-1]


@pytest.mark.parametrize(
    ("task", "seed", "words"),
    [("open_drawr", 0, ["open_drawr", "did you mean 'open_drawer'"]), ("open_drawer", -1, ["seed", "-1", "0 or more"])],
)
def test_a_reset_that_cannot_be_is_refused_and_changes_nothing(
    waiting: SimRig, task: str, seed: int, words: list[str]
) -> None:
    before_ns = stamp_to_ns(waiting.reset("press_button", 1).stamp)
    waiting.at("wrist", before_ns)
    answer = waiting.reset(task, seed)
    assert not answer.success
    assert all(word in answer.message for word in words), answer.message
    repeated = len(waiting.heard["wrist"])
    waiting.until(lambda: len(waiting.heard["wrist"]) > repeated, "image of the scene before")
    assert stamp_to_ns(waiting.heard["wrist"][-1].header.stamp) == before_ns

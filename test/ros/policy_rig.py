"""A contract in; a stand-in for its robot, a client of the policy node, and what policy and guard said, out."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from geometry_msgs.msg import PoseStamped, TwistStamped
from guard_rig import ROBOTS, twist_values
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from vla_msgs.action import RunPolicy
from vla_msgs.msg import EpisodeEvent, PolicyStatus, RobotCommand, SafetyStatus

from vla_policy.contract import RobotContract, load_contract
from vla_policy.types import Pose, seconds_to_ns
from vla_policy_node import messages
from vla_policy_node.pace import LATCHED, RELIABLE

DEADLINE_S = 60.0  # generous: a loaded machine is no fault of the nodes
FEED_PERIOD_S = 0.1
MAX_AGE_S = 2.0
PATIENCE_S = 30.0  # of the watchdogs
HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))


def patient_contract(robot: str, folder: Path, **watchdog: float) -> Path:
    """A shipped contract that forgives a loaded machine, written into `folder`."""
    data = yaml.safe_load((ROBOTS / f"{robot}.yaml").read_text())
    data["watchdog"] = {"silence_s": PATIENCE_S, "state_max_age_s": PATIENCE_S, "clock_jump_s": PATIENCE_S, **watchdog}
    for stream in (*data["cameras"].values(), data["joints"], data["pose"]):
        stream["max_age_s"] = MAX_AGE_S
    path = folder / f"{robot}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def policy_command(contract: Path, bundle: Path | str, *parameters: str) -> list[str]:
    """The command line of a policy node's process."""
    settings = (f"contract:={contract}", f"bundle:={bundle}", *parameters)
    options = [word for setting in settings for word in ("-p", setting)]
    return [sys.executable, "-m", "vla_policy_node.policy_node", "--ros-args", *options]


class Goal:
    """A goal that was sent to /vla/run: its answer, feedback and result as they come."""

    def __init__(self, rig: PolicyRig, answer: Any, feedback: list[RunPolicy.Feedback]) -> None:
        self._rig = rig
        rig.until(answer.done, "answer to a goal")
        self.handle = answer.result()
        self.accepted: bool = self.handle.accepted
        self.feedback = feedback
        self._result = self.handle.get_result_async() if self.accepted else None

    def result(self) -> RunPolicy.Result:
        """The result, once the run has ended."""
        self._rig.until(self._result.done, "end of the run")
        return self._result.result().result

    def running(self) -> RunPolicy.Feedback:
        """The newest feedback of the run, once it has made a step."""
        self._rig.until(lambda: self.feedback and self.feedback[-1].inferences, "feedback of a run")
        return self.feedback[-1]


class PolicyRig:
    """Feeds cameras, joints and pose ten times a second while `feeding`, in a thread, and keeps what it hears.

    silent: cameras that say nothing. encodings: camera -> what it sends instead of the contract's encoding.
    """

    def __init__(self, contract_path: Path, home: Pose = HOME, feeding: bool = True) -> None:
        self.contract: RobotContract = load_contract(contract_path)
        self.feeding, self.home = feeding, home
        self.silent: set[str] = set()
        self.encodings: dict[str, str] = {}
        self.arm: list[TwistStamped] = []
        self.sent: list[RobotCommand] = []
        self.safety: list[SafetyStatus] = []
        self.statuses: list[PolicyStatus] = []
        self.poses: list[PoseStamped] = []
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("rig", context=self.context)
        self._connect()
        self.node.create_timer(FEED_PERIOD_S, self._feed)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the ROS graph."""
        self._executor.shutdown()
        self._thread.join(DEADLINE_S)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def _connect(self) -> None:
        contract, node = self.contract, self.node
        noise = np.random.default_rng(0)
        self._cameras = {
            name: node.create_publisher(Image, camera.topic, RELIABLE) for name, camera in contract.cameras.items()
        }
        self._pictures = {
            name: noise.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
            for name, camera in contract.cameras.items()
        }
        self._joints = node.create_publisher(JointState, contract.joints.topic, RELIABLE)
        self._pose = node.create_publisher(PoseStamped, contract.pose.topic, RELIABLE)
        self._instruction = node.create_publisher(String, "/instruction", RELIABLE)
        self._episode = node.create_publisher(EpisodeEvent, "/vla/episode", LATCHED)
        self._run = ActionClient(node, RunPolicy, "/vla/run")
        self._reset = node.create_client(Trigger, "/vla/safety/reset")
        self._estop = node.create_client(SetBool, "/vla/set_estop")
        node.create_subscription(TwistStamped, contract.action.command.topic, self.arm.append, 100)
        node.create_subscription(PoseStamped, contract.pose.topic, self.poses.append, 100)
        node.create_subscription(RobotCommand, "/vla/command", self.sent.append, 100)
        node.create_subscription(SafetyStatus, "/vla/safety", self.safety.append, LATCHED)
        node.create_subscription(PolicyStatus, "/vla/status", self.statuses.append, 100)

    # ---- the robot ----------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        if not self.feeding:
            return
        now_ns, names = self.now_ns(), self.contract.joints.names
        for name, publisher in self._cameras.items():
            if name not in self.silent:
                image = messages.array_to_image(self._pictures[name], now_ns, name)
                image.encoding = self.encodings.get(name, image.encoding)
                publisher.publish(image)
        # In another order than the contract's, as drivers do.
        self._joints.publish(messages.array_to_joint_state(np.zeros(len(names)), names[::-1], now_ns))
        self._pose.publish(messages.pose_to_msg(self.home, now_ns, self.contract.base_frame))

    def now_ns(self) -> int:
        """ROS time, as a robot's driver stamps it."""
        return self.node.get_clock().now().nanoseconds

    # ---- the client ---------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until `condition` holds; AssertionError with the last words of the nodes when it never does."""
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, (
                f"no {what} within {DEADLINE_S} s; last status {self.statuses[-1:]}, safety {self.safety[-1:]}"
            )
            time.sleep(0.02)

    def until_idle(self) -> None:
        """Wait for a guard and an active policy without a run."""
        count = len(self.statuses)
        self.until(lambda: self._reset.service_is_ready() and self._run.server_is_ready() and self.safety, "nodes")
        self.until(lambda: any(s.state == PolicyStatus.IDLE for s in self.statuses[count:]), "idle policy")

    def send(self, instruction: str, time_limit_s: float = 0.0) -> Goal:
        """Send a goal and wait for the answer."""
        feedback: list[RunPolicy.Feedback] = []
        goal = RunPolicy.Goal(instruction=instruction, time_limit=messages.ns_to_duration(seconds_to_ns(time_limit_s)))
        answer = self._run.send_goal_async(goal, feedback_callback=lambda msg: feedback.append(msg.feedback))
        return Goal(self, answer, feedback)

    def say(self, instruction: str) -> None:
        """Publish on /instruction."""
        self._instruction.publish(String(data=instruction))

    def tell(self, event: int, message: str = "") -> None:
        """Publish the end of an episode."""
        self._episode.publish(
            EpisodeEvent(header=messages.make_header(self.now_ns(), ""), event=event, task="drawer", message=message)
        )

    def call(self, client: Any, request: Any) -> Any:
        """A service's answer."""
        answer = client.call_async(request)
        self.until(answer.done, "answer of a service")
        return answer.result()

    def press(self, pressed: bool) -> None:
        """Press or release the emergency stop."""
        assert self.call(self._estop, SetBool.Request(data=pressed)).success

    def reset(self) -> None:
        """End a latched stop."""
        assert self.call(self._reset, Trigger.Request()).success

    # ---- what policy and guard did ------------------------------------------------------------------------------

    def until_run(self, instruction: str) -> PolicyStatus:
        """The first status of a step of a run with this instruction."""

        def found() -> list[PolicyStatus]:
            return [s for s in list(self.statuses) if s.instruction == instruction and s.inferences]

        self.until(found, f"step of '{instruction}'")
        return found()[0]

    def until_moving(self) -> None:
        """Wait for the robot to be told to move, from now on."""
        count = len(self.arm)
        self.until(lambda: any(twist_values(msg).any() for msg in self.arm[count:]), "motion")

    def assert_still(self) -> None:
        """The robot is told to stand still, over several commands."""
        self.until(lambda: not twist_values(self.arm[-1]).any(), "standstill")
        count = len(self.arm)
        self.until(lambda: len(self.arm) >= count + 5, "twists of a robot that is held")
        assert not any(twist_values(msg).any() for msg in self.arm[count:])

    def fresh_positions(self, count: int) -> np.ndarray:
        """The next `count` positions of the tool, (count, 3) m in the base frame."""
        seen = len(self.poses)
        self.until(lambda: len(self.poses) >= seen + count, "poses")
        points = [msg.pose.position for msg in self.poses[seen:]]
        return np.array([[point.x, point.y, point.z] for point in points])

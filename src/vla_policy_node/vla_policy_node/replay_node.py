"""A recorded episode in, its actions once more through the guard out: to a simulator's scene, or to the robot.

    ros2 run vla_policy replay outputs/demos/episode_0003 --reset-scene          in the simulator, from the same start
    ros2 run vla_policy replay outputs/demos/episode_0003 --robot ur5e --speed 0.5

The guard limits and watches it as it does a policy. Nothing moves while anybody else drives, or unless the arm stands
where the episode began; at the end the arm holds. The thinking stands in `vla_policy.replay`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console
from std_msgs.msg import Bool
from vla_msgs.msg import ActionChunk, EpisodeEvent, PolicyStatus, SafetyStatus
from vla_msgs.srv import ResetSim

from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import VlaError
from vla_policy.recording import INTERVENTION_TOPIC
from vla_policy.replay import RecordedActions, Replay, check_fits, load_actions, words_of
from vla_policy.resources import find_contract
from vla_policy_node.guard_watch import GuardWatch
from vla_policy_node.messages import chunk_to_msg, end_of_run_msg
from vla_policy_node.pace import LATCHED, RELIABLE, Pace
from vla_policy_node.robot_state import RobotState

READY_S = 20.0
CALL_S = 30.0
SETTLE_S = 1.0  # for the last news of others to arrive before the first chunk, and of a success after the last
SILENT_S = 5.0  # without a state the replay ends; the guard holds long before
PROGRESS_S = 1.0
SERVE_S = 0.05
MOVING = (SafetyStatus.ACTIVE, SafetyStatus.LIMITING)


class ReplayNode(Node):
    """Wires topics to `Replay`; call `play` from the thread that made it."""

    def __init__(self, contract: RobotContract, pace: Pace) -> None:
        super().__init__("replay_node")
        self._contract = contract
        self._run_id = time.time_ns() // 1_000_000  # as a policy's runs count, and later than any of them
        self._replay: Replay | None = None
        self._begun = self._succeeded = False
        self._safety: SafetyStatus | None = None
        self._policy: PolicyStatus | None = None
        self._operator_drives = False
        self._guard = GuardWatch()
        self._slack_ns = 0 if pace is Pace.LOCKSTEP else contract.control_dt_ns // 2
        self._chunks = self.create_publisher(ActionChunk, "/vla/action_chunk", RELIABLE)
        self._reset = self.create_client(ResetSim, "/sim/reset")
        self._state = RobotState(self, contract, pace, self._on_state)
        self.create_subscription(SafetyStatus, "/vla/safety", self._on_safety, LATCHED)
        self.create_subscription(PolicyStatus, "/vla/status", self._on_policy, LATCHED)
        self.create_subscription(Bool, INTERVENTION_TOPIC, self._on_intervention, LATCHED)
        self.create_subscription(EpisodeEvent, "/vla/episode", self._on_episode, LATCHED)
        self._executor_ = SingleThreadedExecutor()
        self._executor_.add_node(self)

    def reset_scene(self, recorded: RecordedActions) -> None:
        """The simulator's scene as it was when the episode began. Raises: VlaError where there is none, or no such."""
        record = recorded.record
        if not record.task or record.seed is None:
            raise VlaError("--reset-scene: got an episode that tells no scene of a simulator; leave it out")
        if not self._until(self._reset.service_is_ready, READY_S):
            raise VlaError("--reset-scene: nobody offers /sim/reset; start the simulator")
        asked = self._reset.call_async(ResetSim.Request(task=record.task, seed=record.seed))
        if not self._until(asked.done, CALL_S):
            raise VlaError(f"/sim/reset did not answer within {CALL_S:g} s; is the simulator alive?")
        if not asked.result().success:
            raise VlaError(f"/sim/reset refused task '{record.task}': {asked.result().message}")

    def play(self, recorded: RecordedActions, tolerance: float, tell: Callable[[str], None]) -> None:
        """Send the episode to its end. Raises: VlaError for what keeps it from beginning, or ended it."""
        self._wait_until_ready()
        self._refuse_if_driven()
        check_fits(recorded, self._contract, self._state.newest.joints, tolerance)
        tell(f"replays {words_of(recorded)}")
        self._begun = True
        self._replay = replay = Replay(recorded, self._run_id, self._slack_ns)
        self._on_state()
        told_s = heard_s = time.monotonic()
        seen_ns = -1
        while not replay.is_over(state_ns := self._state.newest.stamp_ns):
            self._executor_.spin_once(timeout_sec=SERVE_S)
            self._check_alone()
            now_s = time.monotonic()
            heard_s = now_s if state_ns != seen_ns else heard_s
            seen_ns = state_ns
            if now_s - heard_s > SILENT_S:
                raise VlaError(f"the robot's state did not change for {SILENT_S:g} s; are driver and guard alive?")
            if now_s - told_s > PROGRESS_S:
                told_s = now_s
                tell(f"{replay.sent_rows} of {replay.total_rows} rows")
        tell(f"{replay.sent_rows} of {replay.total_rows} rows")

    def end(self) -> bool:
        """Let the arm hold; whether the simulator said that the task was done."""
        self._replay = None
        self._chunks.publish(end_of_run_msg(self._run_id, self.get_clock().now().nanoseconds, self._contract))
        self._until(lambda: self._succeeded, SETTLE_S)
        return self._succeeded

    def close(self) -> None:
        """Leave the graph."""
        self._executor_.shutdown()
        self.destroy_node()

    def _wait_until_ready(self) -> None:
        parts = {"the robot's state": lambda: self._state.newest is not None,
                 "a guard on /vla/action_chunk": self._chunks.get_subscription_count,
                 "/vla/safety": lambda: self._safety is not None}
        self._until(lambda: all(ready() for ready in parts.values()), READY_S)
        missing = [name for name, ready in parts.items() if not ready()]
        if missing:
            raise VlaError(f"waited {READY_S:g} s for {', '.join(missing)}; start robot or simulator, and guard_node")
        self._until(lambda: False, SETTLE_S)

    def _refuse_if_driven(self) -> None:
        """Raises: VlaError where the guard is stopped, or somebody drives."""
        fault = self._guard.fault()
        if fault is not None:
            raise VlaError(f"nothing is replayed: {fault}")
        if self._operator_drives:
            raise VlaError("nothing is replayed: an operator has control; hand it back first")
        if self._policy is not None and self._policy.state in (PolicyStatus.RUNNING, PolicyStatus.WAITING):
            raise VlaError(f"nothing is replayed: the policy's run {self._policy.run_id} is active; cancel it first")
        if self._safety.state in MOVING:
            raise VlaError(f"nothing is replayed: run {self._safety.run_id} drives the robot; end it first")

    def _check_alone(self) -> None:
        """Raises: VlaError where the guard stopped, or another took over."""
        fault = self._guard.fault()
        if fault is not None:
            raise VlaError(f"the replay ended: {fault}")
        if self._operator_drives:
            raise VlaError("the replay ended: an operator took over")
        if self._safety.state in MOVING and self._safety.run_id not in (0, self._run_id):
            raise VlaError(f"the replay ended: run {self._safety.run_id} drives the robot")

    # ---- what is heard ----------------------------------------------------------------------------------------------

    def _on_state(self) -> None:
        state = self._state.newest
        if self._replay is not None and state is not None:
            for chunk in self._replay.poll(state.stamp_ns):
                self._chunks.publish(chunk_to_msg(chunk, self._contract))

    def _on_safety(self, msg: SafetyStatus) -> None:
        self._safety = msg
        self._guard.hear(msg)

    def _on_policy(self, msg: PolicyStatus) -> None:
        self._policy = msg

    def _on_intervention(self, msg: Bool) -> None:
        self._operator_drives = msg.data

    def _on_episode(self, msg: EpisodeEvent) -> None:
        self._succeeded = self._begun and (self._succeeded or msg.event == EpisodeEvent.SUCCESS)

    def _until(self, condition: Callable[[], object], timeout_s: float) -> bool:
        """Serve until the condition holds, or the time is up; whether it holds."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                return False
            self._executor_.spin_once(timeout_sec=SERVE_S)
        return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="replay", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("episode", type=Path, help="folder of a recorded episode; of other data: convert --to bag")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--pace", choices=[pace.value for pace in Pace], default=Pace.REALTIME.value,
                        help="lockstep only with a simulator that waits")
    parser.add_argument("--speed", type=float, default=1.0, help="share of the recorded speed, up to 1")
    parser.add_argument("--tolerance", type=float, default=0.05, help="how far each joint may be off [rad or m]")
    parser.add_argument("--reset-scene", action="store_true", help="first reset the simulator to the episode's scene")
    return parser


def main() -> None:
    """Replay; exit code 1 and one line where that was refused, or ended early."""
    options = _parser().parse_args(remove_ros_args(sys.argv)[1:])
    sys.exit(run(options, Console(highlight=False)))


def run(options: argparse.Namespace, console: Console) -> int:
    """Replay as the options say. Returns the exit status."""
    def tell(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node, status = None, 1
    try:
        recorded = load_actions(options.episode, options.speed)
        node = ReplayNode(load_contract(find_contract(options.robot)), Pace(options.pace))
        if options.reset_scene:
            node.reset_scene(recorded)
        try:
            node.play(recorded, options.tolerance, tell)
        finally:
            succeeded = node.end()
        tell("the arm holds" + ("; the simulator says that the task is done" if succeeded else ""))
        status = 0
    except VlaError as problem:
        console.print(str(problem), style="red", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        tell("interrupted, the arm holds")
        status = 130
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return status


if __name__ == "__main__":
    main()

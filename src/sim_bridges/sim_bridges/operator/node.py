"""A simulator's whole state in, a gamepad's Joy messages out: a scripted person records episodes by the buttons.

    ros2 launch vla_policy record.launch.py task:=bring_to_lamp output:=outputs/lamp publish_state:=true
    ros2 run sim_bridges scripted_operator --task bring_to_lamp --episodes 40

Everything goes the way that a person's joystick goes: /joy, teleoperation, guard, recorder. What is known beyond that,
of the simulator alone, is its state on /sim/state and the resets of its scenes. One line an episode, and a JSON file if
named.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Joy
from std_msgs.msg import Float64MultiArray
from vla_msgs.msg import EpisodeEvent, RecordingStatus, RobotCommand, SafetyStatus
from vla_msgs.srv import ResetSim

from sim_bridges.operator.gamepad import Gamepad
from sim_bridges.operator.hands import ScriptedHands
from sim_bridges.operator.session import PRESS_S, Limits, Session
from sim_bridges.sim_publisher import STATE_TOPIC, scene_label
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import VlaError
from vla_policy.recording import COMMAND_TOPIC
from vla_policy.resources import find_contract, find_teleop
from vla_policy.teleop.mapping import Device, load_mapping
from vla_policy_node.messages import make_header
from vla_policy_node.pace import LATCHED, LATEST_ONLY, RELIABLE

REPEAT_S = 0.02  # as a joystick's driver repeats what it reads
LOOK_S = 0.015  # a hand that looks more often than that gains nothing
READY_S = 60.0
CALL_S = 30.0
FAILURES = 5  # in a row, before all is given up


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a scene. seconds: of the wall, from the reset to the end of the recording."""

    seed: int
    instruction: str
    success: bool
    problem: str
    path: str
    seconds: float


class ScriptedOperator(Node):
    """Plays one episode after the other; call `play` from the thread that made it."""

    def __init__(self, contract: RobotContract, gamepad: Gamepad, hands: ScriptedHands, limits: Limits) -> None:
        super().__init__("scripted_operator")
        self._contract, self._gamepad, self._hands, self._limits = contract, gamepad, hands, limits
        self._session: Session | None = None
        self._scene = ""  # label of the scene that the hands are in
        self._twist, self._pressed, self._looked_s = np.zeros(6), set[str](), 0.0
        self._opening: float | None = None
        self._recording: RecordingStatus | None = None
        self._safety: SafetyStatus | None = None
        self._states = 0
        self._joy = self.create_publisher(Joy, "/joy", RELIABLE)
        self._reset = self.create_client(ResetSim, "/sim/reset")
        self.create_subscription(Float64MultiArray, STATE_TOPIC, self._on_state, LATEST_ONLY)
        self.create_subscription(RobotCommand, COMMAND_TOPIC, self._on_command, LATEST_ONLY)
        self.create_subscription(RecordingStatus, "/vla/recording", self._on_recording, LATCHED)
        self.create_subscription(SafetyStatus, "/vla/safety", self._on_safety, LATCHED)
        self.create_subscription(EpisodeEvent, "/vla/episode", self._on_episode, RELIABLE)
        self.create_timer(REPEAT_S, self._repeat)
        self._executor_ = SingleThreadedExecutor()
        self._executor_.add_node(self)

    def wait_until_ready(self) -> None:
        """Raises: VlaError naming who is missing."""
        parts = {"/sim/reset": self._reset.service_is_ready, STATE_TOPIC: lambda: self._states,
                 "/vla/recording": lambda: self._recording is not None, "/vla/safety": lambda: self._safety is not None,
                 "/joy": self._joy.get_subscription_count}
        self._until(lambda: all(ready() for ready in parts.values()), READY_S)
        missing = [name for name, ready in parts.items() if not ready()]
        if missing:
            raise VlaError(f"waited {READY_S:g} s for {', '.join(missing)}; start them: ros2 launch vla_policy "
                           "record.launch.py publish_state:=true")

    def play(self, task: str, seed: int) -> Recorded:
        """Record one scene. Raises: VlaError where the simulator refuses it, or does not answer."""
        began_s = time.monotonic()
        self._free_guard()
        asked = self._reset.call_async(ResetSim.Request(task=task, seed=seed))
        if not self._until(asked.done, CALL_S):
            raise VlaError(f"/sim/reset did not answer within {CALL_S:g} s; is the simulator alive?")
        if not asked.result().success:
            raise VlaError(f"/sim/reset refused task '{task}': {asked.result().message}")
        self._hands.begin(task, seed)
        self._scene = scene_label(task, seed)
        self._session = session = Session(self._limits)
        self._until(lambda: session.is_over, float("inf"))  # each step of a session has its own end
        self._session, self._pressed = None, set()
        path = self._recording.path if self._recording is not None else ""
        seconds = round(time.monotonic() - began_s, 2)
        return Recorded(seed, asked.result().instruction, session.succeeded, session.problem, path, seconds)

    def close(self) -> None:
        """Let go of everything and leave the graph."""
        self._session, self._pressed = None, set()
        self._repeat()
        self._executor_.shutdown()
        self.destroy_node()

    def _free_guard(self) -> None:
        """End a latched stop by the buttons."""
        if self._safety is not None and self._safety.state == SafetyStatus.STOPPED:
            self._pressed = {"reset_guard"}
            self._until(lambda: self._safety.state != SafetyStatus.STOPPED, CALL_S)
            self._pressed = set()
            self._until(lambda: False, PRESS_S)

    # ---- what is heard ----------------------------------------------------------------------------------------------

    def _on_state(self, msg: Float64MultiArray) -> None:
        self._states += 1
        now_s = time.monotonic()
        session = self._session
        if session is None or not session.drives or msg.layout.dim[0].label != self._scene:
            return
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        self._twist, wants_open = self._hands.look(np.frombuffer(msg.data, np.float64))
        self._play_joy({"gripper"} if session.wants_press(wants_open, self._opening, now_s) else set())

    def _on_command(self, msg: RobotCommand) -> None:
        if msg.names and msg.names[-1] == "gripper":
            self._opening = msg.values[-1]

    def _on_recording(self, msg: RecordingStatus) -> None:
        self._recording = msg
        if self._session is not None:
            busy = msg.state in (RecordingStatus.RECORDING, RecordingStatus.FINISHING)
            self._session.hear_recording(busy, time.monotonic())

    def _on_safety(self, msg: SafetyStatus) -> None:
        self._safety = msg
        if self._session is not None and msg.state == SafetyStatus.STOPPED:
            self._session.fail(f"the guard stopped: {msg.message}", time.monotonic())

    def _on_episode(self, msg: EpisodeEvent) -> None:
        if self._session is not None and msg.event == EpisodeEvent.SUCCESS:
            self._session.hear_success(time.monotonic())

    # ---- what is played ---------------------------------------------------------------------------------------------

    def _repeat(self) -> None:
        if self._session is not None:
            self._pressed = self._session.hold(time.monotonic())
            if not self._session.drives:
                self._twist = np.zeros(6)
        self._play_joy(set())

    def _play_joy(self, tapped: set[str]) -> None:
        """tapped: pressed in this message alone."""
        stamp_ns = self.get_clock().now().nanoseconds
        self._joy.publish(Joy(header=make_header(stamp_ns, "joy"), axes=self._gamepad.axes(self._twist),
                              buttons=self._gamepad.buttons(self._pressed | tapped)))

    def _until(self, condition: Callable[[], object], timeout_s: float) -> bool:
        """Serve until the condition holds, or the time is up; whether it holds."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                return False
            self._executor_.spin_once(timeout_sec=REPEAT_S)
        return True


def record(operator: ScriptedOperator, task: str, first_seed: int, episodes: int) -> list[Recorded]:
    """Record scenes until so many were successful. Raises: VlaError where too many in a row are not."""
    done: list[Recorded] = []
    failed, seed = 0, first_seed
    while sum(one.success for one in done) < episodes:
        one = operator.play(task, seed)
        done.append(one)
        words = "recorded" if one.success else f"failed: {one.problem}"
        operator.get_logger().info(f"{sum(o.success for o in done)} of {episodes}: '{one.instruction}' {words}, "
                                   f"{one.seconds:.1f} s")
        failed = 0 if one.success else failed + 1
        if failed >= FAILURES:
            raise VlaError(f"{failed} scenes in a row could not be recorded, the last one: {one.problem}")
        seed += 1
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripted_operator", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="bring_to_lamp", help="of the embedded tabletop")
    parser.add_argument("--episodes", type=int, default=40, help="successful ones")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--mapping", default="joy", help="of the gamepad: a name in config/teleop or a file")
    parser.add_argument("--time-limit", type=float, default=Limits().time_limit_s, help="of one episode [s]")
    parser.add_argument("--wander", type=float, default=0.001, help="unsteadiness of the hand [m per look]")
    parser.add_argument("--json", type=Path, help="file for what became of each scene")
    return parser


def main() -> None:
    """Record; exit code 1 and one line where that fails."""
    options = _parser().parse_args(remove_ros_args(sys.argv)[1:])
    sys.exit(run(options))


def run(options: argparse.Namespace) -> int:
    """Record as the options say. Returns the exit status."""
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    operator, status = None, 1
    try:
        contract = load_contract(find_contract(options.robot))
        gamepad = Gamepad(load_mapping(Device.JOY, find_teleop(options.mapping), contract), contract)
        operator = ScriptedOperator(contract, gamepad, ScriptedHands(options.wander), Limits(options.time_limit))
        operator.wait_until_ready()
        done = record(operator, options.task, options.seed, options.episodes)
        _write(options.json, done)
        status = 0
    except VlaError as problem:
        rclpy.logging.get_logger("scripted_operator").error(str(problem))
    except KeyboardInterrupt:
        status = 130
    finally:
        if operator is not None:
            operator.close()
        rclpy.try_shutdown()
    return status


def _write(path: Path | None, done: Sequence[Recorded]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(one) for one in done], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

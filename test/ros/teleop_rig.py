"""A contract in; a stand-in for its robot, an operator's gamepad, a policy's chunks and a recorder out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from geometry_msgs.msg import Twist
from guard_rig import GuardRig
from processes import Spawned
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool
from vla_msgs.msg import TeleopStatus
from vla_msgs.srv import MarkRecording, StartRecording, StopRecording

from vla_policy.resources import find_teleop
from vla_policy_node.messages import ns_to_stamp
from vla_policy_node.operator_topics import TAKE_OVER_SERVICE, TELEOP_STATUS_TOPIC
from vla_policy_node.pace import LATCHED, RELIABLE

AXES, BUTTONS = 8, 11  # of config/teleop/joy.yaml
DEAD_MAN, GRIPPER, ESTOP, TAKE_OVER, HAND_BACK, BACK, START, FAST = 5, 0, 1, 2, 3, 6, 7, 10
X, Y = 1, 0  # axes
DEVICE_PERIOD_S = 0.02
POLICY_PERIOD_S = 0.1
SILENCE_S = 2.0


def teleop_command(*parameters: str) -> list[str]:
    """The command line of a teleoperation process whose chunks reach far enough for a loaded machine."""
    options = [word for setting in ("reach_s:=2.0", *parameters) for word in ("-p", setting)]
    return [sys.executable, "-m", "vla_policy_node.teleop_node", "--ros-args", *options]


def patient_mapping(device: str, folder: Path) -> Path:
    """A shipped mapping that forgives a loaded machine its pauses, written into `folder`."""
    data = yaml.safe_load(find_teleop(device).read_text()) | {"silence_s": SILENCE_S}
    path = folder / f"{device}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


class TeleopRig(GuardRig):
    """A GuardRig with a gamepad that repeats `axes` and `buttons` while `joy_speaks`, a SpaceMouse that repeats `cap`,
    a leader arm that repeats `leader`, and a policy that sends chunks of `policy_row` while it has a run.

    simulated: it gives time on /clock, `time_offset_ns` off the system's. asked: what the stand-in recorder was asked.
    """

    def __init__(self, contract_path: Path, position: tuple[float, float, float], simulated: bool = False) -> None:
        self.simulated, self.time_offset_ns = simulated, 0
        self.axes, self.buttons = [0.0] * AXES, [0] * BUTTONS
        self.joy_speaks = True
        self.cap: Twist | None = None
        self.leader: dict[str, float] = {}
        self.teleop: Spawned | None = None  # the process, whose words explain a failure
        self.policy_run_id, self.policy_row = 0, None
        self.statuses: list[TeleopStatus] = []
        self.interventions: list[bool] = []
        self.asked: list[Any] = []
        super().__init__(contract_path, position)
        self.node.create_timer(DEVICE_PERIOD_S, self._play_device)
        self.node.create_timer(POLICY_PERIOD_S, self._play_policy)

    def _connect(self) -> None:
        super()._connect()
        node = self.node
        self._joy = node.create_publisher(Joy, "/joy", RELIABLE)
        self._spacemouse = node.create_publisher(Twist, "/spacenav/twist", RELIABLE)
        self._spacemouse_buttons = node.create_publisher(Joy, "/spacenav/joy", RELIABLE)
        self._clock = node.create_publisher(Clock, "/clock", RELIABLE)
        self._leader = node.create_publisher(JointState, "/leader/joint_states", RELIABLE)
        self.take_over = node.create_client(SetBool, TAKE_OVER_SERVICE)
        node.create_subscription(TeleopStatus, TELEOP_STATUS_TOPIC, self.statuses.append, LATCHED)
        node.create_subscription(Bool, "/vla/intervention", lambda msg: self.interventions.append(msg.data), LATCHED)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """As GuardRig's, with the last words of the teleoperation."""
        try:
            super().until(condition, what)
        except AssertionError as problem:
            raise AssertionError(f"{problem}; last of the teleoperation: {self.statuses[-1:]}, it said: "
                                 f"{self.teleop and self.teleop.output}") from None

    def offer_recorder(self) -> None:
        """Stand-ins for the recorder's services."""
        def start(request: StartRecording.Request, response: StartRecording.Response) -> StartRecording.Response:
            self.asked.append(request)
            response.success, response.message, response.path = True, "recording 7", "/episodes/7"
            return response

        def agree(request: Any, response: Any) -> Any:
            self.asked.append(request)
            response.success, response.message = False, "nothing is being recorded"
            return response

        self.node.create_service(StartRecording, "/vla/record/start", start)
        self.node.create_service(StopRecording, "/vla/record/stop", agree)
        self.node.create_service(MarkRecording, "/vla/record/mark", agree)

    def connect_teleop(self, words: str) -> None:
        """Wait for the teleoperation, until it hears device and guard, saw the switch released, and says `words`."""
        buttons = (self._joy, self._spacemouse_buttons)
        self.until(lambda: any(publisher.get_subscription_count() for publisher in buttons), "teleoperation")
        self.until_teleop(TeleopStatus.OFF, words)

    def now_ns(self) -> int:
        """ROS time, as a robot's driver stamps it."""
        return super().now_ns() + self.time_offset_ns

    def press_spacemouse(self, *buttons: int) -> None:
        """Tell the buttons of the SpaceMouse, once, as its driver does."""
        self._spacemouse_buttons.publish(Joy(axes=[0.0] * 6, buttons=[int(index in buttons) for index in range(2)]))

    def _play_device(self) -> None:
        if self.simulated:
            self._clock.publish(Clock(clock=ns_to_stamp(self.now_ns())))
        if self.cap is not None:
            self._spacemouse.publish(self.cap)
        if self.joy_speaks:
            self._joy.publish(Joy(axes=self.axes, buttons=self.buttons))
        if self.leader:
            self._leader.publish(JointState(name=list(self.leader), position=list(self.leader.values())))

    def _play_policy(self) -> None:
        if self.policy_run_id:
            self.send_chunk(self.policy_row, self.policy_run_id)

    def hold(self, *buttons: int, **axes: float) -> None:
        """Hold exactly these buttons and deflect exactly these axes, by their names in the mapping: x, y."""
        self.buttons = [int(index in buttons) for index in range(BUTTONS)]
        self.axes = [0.0] * AXES
        for name, value in axes.items():
            self.axes[{"x": X, "y": Y}[name]] = value

    def tap(self, *buttons: int) -> None:
        """Press buttons, beside those that are held, and let them go."""
        held = list(self.buttons)
        self.buttons = [int(value or index in buttons) for index, value in enumerate(held)]
        self.serve(5 * DEVICE_PERIOD_S)
        self.buttons = held
        self.serve(5 * DEVICE_PERIOD_S)

    def serve(self, duration_s: float) -> None:
        """Let time pass."""
        end_ns = self.now_ns() + int(duration_s * 1e9)
        self.until(lambda: self.now_ns() >= end_ns, "passing of time")

    def until_teleop(self, state: int, words: str = "") -> TeleopStatus:
        """Wait until the newest status has this state and these words, and return it."""
        self.until(lambda: self.statuses and self.statuses[-1].state == state and words in self.statuses[-1].message,
                   f"teleoperation in state {state} with '{words}'")
        return self.statuses[-1]

    def until_logged(self, words: str) -> None:
        """Wait until the teleoperation logs these words."""
        self.until(lambda: words in self.teleop.output, f"'{words}'")

    def until_intervention(self, driving: bool) -> None:
        """Wait until /vla/intervention says so."""
        self.until(lambda: self.interventions and self.interventions[-1] is driving, f"intervention {driving}")

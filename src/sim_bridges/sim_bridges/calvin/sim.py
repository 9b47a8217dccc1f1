"""Task and seed in, CALVIN's play table out: CalvinSim implements the `Sim` protocol on the genuine calvin_env.

The same task and seed, then the same commands, give bit-identical states and images, whatever came before: every
scene begins with a table built anew. Images are rendered when they are asked for, not at every step; physics does
not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_bridges.calvin.actions import absolute_action, quaternion_from_euler, relative_action
from sim_bridges.calvin.conditions import TASKS
from sim_bridges.calvin.sequences import SEQUENCES, sequences
from sim_bridges.calvin.starts import Start, benchmark_start, draw_start
from sim_bridges.calvin.world import World, close_table, open_world
from sim_bridges.chains import Chain, Step
from sim_bridges.checks import Offer, check_command, check_contract, check_duration, check_seed, check_task
from sim_bridges.sim import Episode
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import VlaError
from vla_policy.types import NS_PER_S, Command, Observation, Pose, seconds_to_ns

RATE_HZ = 30.0
PERIOD_NS = seconds_to_ns(1.0 / RATE_HZ)
TASK_STEPS = 360  # what is done later than this many steps after a task began does not count
TASK_LIMIT_S = TASK_STEPS * PERIOD_NS / NS_PER_S
FRAME = "world"  # of CALVIN's numbers: the table stands in its middle, the robot's base at (-0.34, -0.46, 0.24) m
CAMERAS = {"static": ("static", 200), "wrist": ("gripper", 84)}  # ours -> CALVIN's name and size [pixels]
JOINTS = (*(f"panda_joint{number}" for number in range(1, 8)), "panda_finger_joint1")  # the last: both fingers' gap
OFFER = Offer("CALVIN", FRAME, JOINTS, RATE_HZ, PERIOD_NS, (ActionKind.EE_DELTA, ActionKind.EE_POSE),
              {name: (size, size) for name, (_, size) in CAMERAS.items()}, "config/robots/calvin.yaml")


class CalvinSim:
    """CALVIN's Panda before its table. open_world: opens the genuine world when the first scene is asked for."""

    def __init__(self, contract: RobotContract, open_world: Callable[[], World] = open_world) -> None:
        """Raises: ContractError for a contract that CALVIN cannot serve, with both values."""
        check_contract(contract, OFFER)
        self._contract = contract
        self._open_world = open_world
        self._world: World | None = None
        self.cameras: dict[str, Any] = {}  # the contract's names -> CALVIN's cameras, once the world is open
        self._time_ns = 0
        self._task: str | None = None
        self._task_begun_ns = 0
        self._chain: Chain | None = None
        self._next_step = 0
        self._observed: dict[str, Any] = {}
        self._start_info: dict[str, Any] = {}
        self._info: dict[str, Any] = {}
        self._succeeded = False
        self._opening = 1.0
        self._held_pose: NDArray[np.float64] | None = None

    @classmethod
    def for_contract(cls, contract: RobotContract) -> CalvinSim:
        """The genuine CALVIN behind `contract`. Raises: ContractError."""
        return cls(contract)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of CALVIN's 34 tasks."""
        return TASKS

    @property
    def time_ns(self) -> int:
        """Sim time [ns]."""
        return self._time_ns

    @property
    def period_ns(self) -> int:
        """CALVIN's control period [ns]."""
        return PERIOD_NS

    @property
    def world(self) -> World:
        """The genuine table, oracle and sentences, opened if need be. Raises: ConfigError, VlaError."""
        if self._world is None:
            self._world = self._open_world()
            table = self._world.table
            theirs = {camera.name: camera for camera in table.cameras}
            self.cameras = {name: theirs[CAMERAS[name][0]] for name in self._contract.cameras}
            table.cameras = []  # a step would render them all
        return self._world

    @property
    def task(self) -> str | None:
        """The task that the oracle judges now."""
        return self._task

    @property
    def robot_obs(self) -> NDArray[np.float64]:
        """CALVIN's 15 proprioceptive numbers, see `sim_bridges.calvin.states`."""
        return self._observed["robot_obs"]

    @property
    def scene_obs(self) -> NDArray[np.float64]:
        """CALVIN's 24 numbers of the scene, see `sim_bridges.calvin.states`."""
        return self._observed["scene_obs"]

    @property
    def info(self) -> dict[str, Any]:
        """What CALVIN's oracle sees now."""
        return self._info

    def reset(self, task: str, seed: int) -> Episode:
        """A scene in which `task` can be done.

        Raises: VlaError for an unknown task, naming the nearest, or a negative seed.
        """
        check_task("calvin", task, TASKS)
        check_seed(seed)
        self._chain = None
        self.place(draw_start(task, seed, self.world))
        return Episode(task, seed, self.begin_task(task), TASK_LIMIT_S)

    def draw_chain(self, seed: int) -> Chain:
        """CALVIN's evaluation sequence number `seed` (beyond 999: modulo 1000). Raises: VlaError for a seed < 0."""
        check_seed(seed)
        sequence = sequences([seed % SEQUENCES])[0]
        return Chain(seed, sequence.state, tuple(Step(task) for task in sequence.tasks))

    def begin_chain(self, chain: Chain) -> Episode:
        """The chain's start scene, CALVIN's own numbers, and its first task. Raises: VlaError on scenes A, B, C."""
        if self.world.scene != "D":
            raise VlaError(f"calvin: got a sequence in scene {self.world.scene}, expected scene D, where CALVIN "
                           "evaluates; unset CALVIN_SCENE")
        self.place(benchmark_start(chain.start))
        self._chain, self._next_step = chain, 0
        return self.next_task()

    def next_task(self) -> Episode:
        """Ask for the chain's next task; nothing moves. Raises: VlaError without chain or after its last task."""
        if self._chain is None or self._next_step == len(self._chain.steps):
            raise VlaError("calvin: got no further task, expected a chain with one; call begin_chain first")
        task = self._chain.steps[self._next_step].task
        self._next_step += 1
        return Episode(task, self._chain.seed, self.begin_task(task), TASK_LIMIT_S)

    def place(self, start: Start) -> None:
        """Build the table anew and put everything where `start` says; no task begins."""
        table = self.world.table
        table.load()
        table.robot.gripper_action = 1
        self._task, self._opening, self._held_pose = None, 1.0, None
        self._observed = table.reset(robot_obs=start.robot_obs, scene_obs=start.scene_obs)
        for action in start.actions:
            self._observed = table.step(action)[0]
            self._opening = float(action[-1] > 0)
        self._info = table.get_info()

    def begin_task(self, task: str) -> str:
        """From here on the oracle judges `task`; nothing moves. Returns the sentence that the benchmark says."""
        check_task("calvin", task, TASKS)
        self._task, self._succeeded = task, False
        self._task_begun_ns, self._start_info = self._time_ns, self._info
        return str(self.world.sentences[task][0])

    def observe(self, images: bool = True) -> Observation:
        """The present state, stamped with `time_ns`; `images=False` leaves out the costly rendering."""
        self._check_begun()
        numbers = self.robot_obs
        pose = Pose(numbers[:3].copy(), quaternion_from_euler(numbers[3:6]))
        cameras = self.cameras.items() if images else ()
        pictures = {name: np.ascontiguousarray(camera.render()[0]) for name, camera in cameras}
        return Observation(self._time_ns, pictures, np.append(numbers[7:14], numbers[6]), pose)

    def advance(self, command: Command | None, duration_ns: int) -> None:
        """Hold `command` (None: stay where you are) and let `duration_ns` pass.

        Raises: VlaError for a duration that is no positive multiple of CALVIN's period, or numbers that are not
        finite.
        """
        self._check_begun()
        check_duration(duration_ns, PERIOD_NS, "CALVIN's control period (30 Hz)")
        for _ in range(duration_ns // PERIOD_NS):
            action = self._action(command)
            self._observed, _, _, self._info = self.world.table.step(action)
            self._time_ns += PERIOD_NS
            self._judge()

    def success(self) -> bool:
        """Whether CALVIN's oracle has seen the task done within 360 steps since it began (it latches)."""
        return self._succeeded

    def close(self) -> None:
        """End the physics client. The sim cannot be used afterwards."""
        if self._world is not None:
            close_table(self._world.table)
            self._world = None
        self._task, self.cameras = None, {}

    def _action(self, command: Command | None) -> Any:
        robot = self.world.table.robot
        if command is not None:
            check_command(command, 6 if self._contract.action.kind is ActionKind.EE_DELTA else 7)
            self._opening = self._opening if command.gripper is None else command.gripper
        if self._contract.action.kind is ActionKind.EE_DELTA:
            twist = np.zeros(6) if command is None else command.arm
            return relative_action(twist, self._opening, PERIOD_NS / NS_PER_S, robot)
        if command is not None:
            self._held_pose = command.arm.copy()
        elif self._held_pose is None:
            self._held_pose = np.append(robot.target_pos, quaternion_from_euler(np.asarray(robot.target_orn)))
        return absolute_action(self._held_pose, self._opening)

    def _judge(self) -> None:
        in_time = self._time_ns - self._task_begun_ns <= TASK_STEPS * PERIOD_NS
        if in_time and not self._succeeded and self._task is not None:
            done = self.world.oracle.get_task_info_for_set(self._start_info, self._info, {self._task})
            self._succeeded = bool(done)

    def _check_begun(self) -> None:
        if not self._observed or self._world is None:
            raise VlaError("calvin: got no scene, expected one; call reset(task, seed) first")


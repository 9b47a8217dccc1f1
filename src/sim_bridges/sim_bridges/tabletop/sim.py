"""Task and seed in, a tabletop world out: TabletopSim implements the `Sim` protocol on MuJoCo.

The same task and seed, then the same commands for the same durations, give bit-identical states and images,
whatever happened before the reset. Control acts every 10 ms, so five calls of 10 ms equal one of 50 ms.
"""

from __future__ import annotations

import weakref
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sim_bridges.chains import Chain, draw_chain
from sim_bridges.checks import check_command, check_duration, check_seed
from sim_bridges.sim import Episode
from sim_bridges.tabletop.arm import CONTROL_S, FINGER_OPEN_M, Arm, rotation_matrix
from sim_bridges.tabletop.chain_twin import OPEN_DRAWER_M, TabletopTwin, start_layout
from sim_bridges.tabletop.gl import missing_library, mujoco
from sim_bridges.tabletop.oracles import reached
from sim_bridges.tabletop.scene import BLOCK_HALF_M, BLOCKS, DRAWER_TRAVEL_M, Layout, Scene
from sim_bridges.tabletop.tasks import EXTRA_TASKS, TASKS, Family, Goal, draw_goal
from vla_policy.contract import RobotContract
from vla_policy.errors import ContractError, VlaError
from vla_policy.types import Command, Observation, Pose, seconds_to_ns

CONTROL_NS = seconds_to_ns(CONTROL_S)
CAMERAS = ("static", "wrist")
TIME_LIMIT_S = 8.0  # of an instruction
HOLD_PERIODS = 20  # control periods for which a success condition must hold without a break: 0.2 s
TOOL_DOWN = np.diag([1.0, -1.0, -1.0])  # hand pointing down, fingers closing along y
START_LOW_M, START_HIGH_M = np.array([0.33, -0.12, 0.22]), np.array([0.41, 0.04, 0.28])
SCATTER_LOW_M, SCATTER_HIGH_M = np.array([0.28, -0.36, 0.02]), np.array([0.68, 0.28, 0.32])


class TabletopSim:
    """A Panda-like arm, four blocks, two pads, a drawer, and a button that switches a lamp.

    image_size: width and height [pixels].
    Raises: VlaError for a size that it cannot draw; RenderingError at the first image where OpenGL fails.
    """

    def __init__(self, image_size: int = 224) -> None:
        self.scene = Scene()
        largest = self.scene.model.vis.global_.offwidth
        if not 1 <= image_size <= largest:
            raise VlaError(f"TabletopSim: got image_size {image_size}, expected 1 .. {largest} pixels")
        self.arm = Arm(self.scene)
        self._steps_per_control = round(CONTROL_S / self.scene.model.opt.timestep)
        self._image_size = image_size
        self._renderer: mujoco.Renderer | None = None
        self._time_ns = 0
        self.goal: Goal | None = None
        self._chain: Chain | None = None
        self._asked = 0  # tasks of the chain so far
        self._target_start = np.zeros(3)
        self._held = 0
        self._succeeded = False
        self.scatter(np.random.default_rng(0))

    @classmethod
    def for_contract(cls, contract: RobotContract) -> TabletopSim:
        """The tabletop behind `contract`. Raises: ContractError for cameras or a control rate that it does not have."""
        sizes = {(camera.width, camera.height) for camera in contract.cameras.values()}
        if tuple(contract.cameras) != CAMERAS or len(sizes) != 1 or len(set(*sizes)) != 1:
            raise ContractError(
                f"{contract.name}: got cameras {', '.join(contract.cameras)} of {sorted(sizes)} pixels, "
                f"expected {', '.join(CAMERAS)}, square and of one size; use config/robots/tabletop.yaml")
        other = [name for name, camera in contract.cameras.items() if camera.compressed or camera.encoding != "rgb8"]
        if other:
            raise ContractError(f"{contract.name}: cameras {', '.join(other)}: got compressed or another encoding, "
                                "expected rgb8; the tabletop sends nothing else")
        if contract.control_dt_ns % CONTROL_NS:
            raise ContractError(
                f"{contract.name}: got control_rate_hz {contract.control_rate_hz:g}, expected 100 Hz or a whole "
                "fraction of it; the tabletop moves in periods of 10 ms")
        return cls(next(iter(sizes))[0])

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that make up its benchmark."""
        return tuple(TASKS)

    @property
    def extra_tasks(self) -> tuple[str, ...]:
        """Names of those that it also plays, where they are named."""
        return tuple(EXTRA_TASKS)

    @property
    def time_ns(self) -> int:
        """Sim time [ns]."""
        return self._time_ns

    @property
    def period_ns(self) -> int:
        """The period of the arm's control [ns]."""
        return CONTROL_NS

    def reset(self, task: str, seed: int) -> Episode:
        """Make a start scene. Raises: VlaError for an unknown task, naming the nearest, or a negative seed."""
        check_seed(seed)
        self._chain = None
        rng = np.random.default_rng([crc32(task.encode()), seed])
        goal = draw_goal(task, rng)
        self.scene.shuffle(rng, _layout(goal))
        self._raise_arm(rng)
        self._begin(goal)
        return Episode(task, seed, goal.instruction, TIME_LIMIT_S)

    def draw_chain(self, seed: int) -> Chain:
        """The chain of five instructions of a seed. Raises: VlaError for a negative seed."""
        check_seed(seed)
        return draw_chain(TabletopTwin(), seed)

    def begin_chain(self, chain: Chain) -> Episode:
        """Make the chain's start scene and ask for its first task."""
        rng = np.random.default_rng([crc32(b"chain"), chain.seed])
        self.scene.shuffle(rng, start_layout(chain))
        self._raise_arm(rng)
        self._chain, self._asked = chain, 0
        return self.next_task()

    @property
    def tasks_left(self) -> int:
        """How many of the chain's tasks were not asked for yet."""
        return 0 if self._chain is None else len(self._chain.steps) - self._asked

    def next_task(self) -> Episode:
        """Ask for the chain's next task; world and arm stay as they are. Raises: VlaError where there is none."""
        if not self.tasks_left:
            raise VlaError("next_task: got no chain, or one whose tasks were all asked for; expected one with a task "
                           "left; call begin_chain")
        chain = self._chain
        step, words = chain.steps[self._asked], np.random.default_rng([crc32(b"words"), chain.seed, self._asked])
        self._asked += 1
        self._begin(draw_goal(step.task, words, step.choice))
        return Episode(step.task, chain.seed, self.goal.instruction, TIME_LIMIT_S)

    def scatter(self, rng: np.random.Generator, held_share: float = 0.4) -> None:
        """A fresh random scene with the arm anywhere over the table, for cheap pictures with known places.

        Drawer and fingers are anywhere, some blocks lie where tasks bring them, and in `held_share` of the scenes one
        is between the fingers. No task.
        """
        self.scene.shuffle(rng, Layout(drawer_m=(0.0, DRAWER_TRAVEL_M)))
        self.scene.rearrange(rng)
        position, yaw = rng.uniform(SCATTER_LOW_M, SCATTER_HIGH_M), rng.uniform(-0.6, 0.6)
        finger_m = float(rng.choice([0.0, FINGER_OPEN_M, rng.uniform(0.0, FINGER_OPEN_M)]))
        tilt = rotation_matrix(np.array([*rng.normal(0.0, 0.04, 2), yaw]))
        if rng.random() < held_share:
            self.scene.put_block(str(rng.choice(list(BLOCKS))), position + [0.0, 0.0, 0.002], yaw)
            finger_m = BLOCK_HALF_M
        self.arm.teleport(position, tilt @ TOOL_DOWN, finger_m)
        self._begin(None)

    def observe(self, images: bool = True) -> Observation:
        """The present state, stamped with `time_ns`; `images=False` leaves out the costly rendering."""
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, self.arm.rotation.ravel())
        pictures = {name: self.render(name) for name in CAMERAS} if images else {}
        pose = Pose(self.arm.position, quaternion[[1, 2, 3, 0]])
        return Observation(self._time_ns, pictures, self.arm.joints, pose)

    def advance(self, command: Command | None, duration_ns: int) -> None:
        """Hold `command` (None: stay where you are) and let `duration_ns` pass.

        Raises: VlaError for a duration that is no positive multiple of 10 ms, or a twist that is not finite.
        """
        check_duration(duration_ns, CONTROL_NS,
                       "the tabletop's control period; choose a control rate that divides 100 Hz")
        twist, gripper = None, None
        if command is not None:
            check_command(command, 6)
            twist, gripper = np.asarray(command.arm, np.float64), command.gripper
        for _ in range(duration_ns // CONTROL_NS):
            self.arm.control(twist, gripper)
            mujoco.mj_step(self.scene.model, self.scene.data, self._steps_per_control)
            self.scene.switch_light()
            self._judge()
        self._time_ns += duration_ns

    def success(self) -> bool:
        """Whether the task's condition has held for 0.2 s since the last reset (it latches)."""
        return self._succeeded

    def target_position(self) -> NDArray[np.float64]:
        """Where the thing is that the hand must first go to, (3,) m, base_link. Raises: VlaError without task."""
        if self.goal is None:
            raise VlaError("target_position: got no task, expected one; call reset(task, seed) first")
        return self.scene.positions()[self.goal.target]

    def positions(self) -> dict[str, NDArray[np.float64]]:
        """Where each nameable thing is, as `Scene.positions`."""
        return self.scene.positions()

    def state(self) -> NDArray[np.float64]:
        """The truth that no robot knows, as `Scene.state`."""
        return self.scene.state()

    def restore(self, state: NDArray[np.float64]) -> None:
        """Stand where another sim with the same task and seed stands. Raises: VlaError as `Scene.restore`."""
        self.scene.restore(state)

    def render(self, camera: str) -> NDArray[np.uint8]:
        """One image, uint8 (S, S, 3) RGB. Raises: RenderingError."""
        renderer = self._renderer or self._open_renderer()
        self.scene.shine()
        renderer.update_scene(self.scene.data, camera)
        return renderer.render()

    def close(self) -> None:
        """Free the renderer. The sim cannot be used afterwards."""
        if self._renderer is not None:
            self._renderer_closer()
            self._renderer = None

    def _open_renderer(self) -> mujoco.Renderer:
        try:
            renderer = mujoco.Renderer(self.scene.model, self._image_size, self._image_size)
        except (ImportError, AttributeError, RuntimeError, OSError, mujoco.FatalError) as problem:
            raise missing_library() from problem
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._renderer = renderer
        # MuJoCo frees its context in __del__, too late at exit; a finalizer runs while modules are there.
        self._renderer_closer = weakref.finalize(self, renderer.close)
        return renderer

    def _begin(self, goal: Goal | None) -> None:
        self.goal, self._held, self._succeeded = goal, 0, False
        if goal is not None:
            self._target_start = self.target_position()

    def _raise_arm(self, rng: np.random.Generator) -> None:
        """The arm where an episode begins: over the table, fingers open."""
        tilt = rotation_matrix(np.array([0.0, 0.0, rng.uniform(-0.15, 0.15)]))
        self.arm.teleport(rng.uniform(START_LOW_M, START_HIGH_M), tilt @ TOOL_DOWN, FINGER_OPEN_M)

    def _judge(self) -> None:
        if self.goal is None or self._succeeded:
            return
        self._held = self._held + 1 if reached(self.goal, self.scene, self._target_start) else 0
        self._succeeded = self._held >= HOLD_PERIODS


def _layout(goal: Goal) -> Layout:
    if goal.family is Family.PUSH:
        return Layout(pushed=(goal.colour,))
    if goal.family is Family.STORE or (goal.family is Family.DRAWER and goal.direction < 0):
        return Layout(OPEN_DRAWER_M)
    if goal.family is Family.LIGHT:
        return Layout(light=goal.direction < 0)
    return Layout()

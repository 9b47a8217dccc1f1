"""Nothing but simpler_genuine.json in, stand-ins for SIMPLER's environments out: the tests' worlds.

`DoubleEnv` is a ManiSkill2_real2sim environment as `GenuineWorld` sees it, `DoubleTwin` one of ManiSkill3 as
`TwinWorld` sees it, with the shapes, types, start poses and info keys that record_simpler.py found in the genuine
ones; test_simpler_genuine.py holds both to the same record. Their physics is none: the tool goes where it is told. An
environment says success while its tool is FAR_M or more from where it began.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from sim_bridges.simpler.checkout import Checkout
from sim_bridges.simpler.genuine import GenuineWorld
from sim_bridges.simpler.protocol import TASKS, TWINS, Variant
from sim_bridges.simpler.robots import GOOGLE, Robot
from sim_bridges.simpler.sim import SimplerSim
from sim_bridges.simpler.twins import Skills, TwinWorld
from sim_bridges.simpler.world import World
from vla_policy.action.rotation import inverse, multiply, rotate
from vla_policy.action.rotation_forms import matrix_from
from vla_policy.contract import RobotContract

RECORD: dict[str, Any] = json.loads(Path(__file__).with_name("simpler_genuine.json").read_text())
FAR_M = 0.05
SOURCE_M, TARGET_M = (0.36, 0.08, 0.015), (0.36, -0.02, 0.015)  # in the base's frame
ADVANCE_STEPS = 100  # the environment of two instructions goes on to the second in the step after so many


class DoublePose:
    """sapien.Pose as the bridge uses it: p, q (w x y z), product and inverse."""

    def __init__(self, p: Any, q: Any) -> None:
        self.p, self.q = np.asarray(p, np.float64), np.asarray(q, np.float64)

    def inv(self) -> DoublePose:
        """The way back."""
        turn = inverse(np.roll(self.q, -1))
        return DoublePose(-_turned(turn, self.p), np.roll(turn, 1))

    def __mul__(self, other: DoublePose) -> DoublePose:
        turn = np.roll(self.q, -1)
        return DoublePose(self.p + _turned(turn, other.p), np.roll(multiply(turn, np.roll(other.q, -1)), 1))

    @property
    def raw_pose(self) -> _Tensor:
        """ManiSkill3's (1, 7) tensor: position, then w x y z."""
        return _Tensor(np.concatenate([self.p, self.q])[None])


class _Tensor(np.ndarray):
    """An array with the methods of a torch tensor that the bridge calls."""

    def __new__(cls, values: Any) -> _Tensor:
        return np.asarray(values).view(cls)

    def cpu(self) -> _Tensor:
        """Itself."""
        return self

    def numpy(self) -> np.ndarray:
        """As a plain array."""
        return np.asarray(self)


class _Double:
    """What both kinds share: a tool that goes where it is told, in the frame of a base turned by half a turn."""

    base = DoublePose([0.147, 0.028, 0.87], [0.0, 0.0, 0.0, 1.0])

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.actions: list[np.ndarray] = []
        self.resets: list[dict[str, Any]] = []
        self.renders = 0
        self.closed = False

    def _restart(self, options: dict[str, Any]) -> None:
        self.resets.append(options)
        self.actions.clear()
        self.position = np.array(self.record["start"]["position"])
        self.turn = np.array(self.record["start"]["quaternion"])
        self.joints = np.array(self.record["start"]["joints"])

    def _move(self, action: np.ndarray) -> None:
        assert action.shape == (7,), "the genuine environments take seven numbers"
        self.actions.append(np.array(action, np.float64))
        self.position = self.position + action[:3]
        self.turn = rotate(self.turn, np.asarray(action[3:6], np.float64))

    def _tool(self) -> DoublePose:
        return self.base * DoublePose(self.position, np.roll(self.turn, 1))

    def _object(self, place_m: tuple[float, float, float]) -> Any:
        """A thing at a place in the base's frame."""
        return SimpleNamespace(pose=self.base * DoublePose(place_m, [1.0, 0.0, 0.0, 0.0]))

    def _far(self) -> bool:
        return bool(np.linalg.norm(self.position - self.record["start"]["position"]) >= FAR_M)

    def _colour(self) -> np.ndarray:
        """A colour (3,), 0 .. 1, that tells the tool's place, so that images differ as states do."""
        self.renders += 1
        return self.position * 37 % 1

    def close(self) -> None:
        """Remembered."""
        self.closed = True


class DoubleEnv(_Double):
    """ManiSkill2_real2sim's environment."""

    def __init__(self, environment: str, **arguments: Any) -> None:
        self.task = next(task for task in TASKS.values() if any(
            variant.environment == environment and _same(variant, arguments)
            for variants in task.sets.values() for variant in variants))
        super().__init__(record_of(self.task.name, self.task.robot))
        self.environment, self.arguments = environment, arguments
        self._obs_mode = arguments["obs_mode"]
        self.tcp = SimpleNamespace()
        self.rgb_overlay_img: np.ndarray | None = None
        self.episode_source_obj, self.episode_target_obj = self._object(SOURCE_M), self._object(TARGET_M)
        self.reset(seed=2022, options={"reconfigure": True})

    @property
    def agent(self) -> Any:
        """The robot and its joints."""
        self.tcp.pose = self._tool()
        return SimpleNamespace(robot=SimpleNamespace(
            pose=self.base, get_qpos=lambda: self.joints.astype(np.float32)))

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Everything to its place."""
        self._restart({"seed": seed, **(options or {})})
        self._cameras = dict.fromkeys(("base_camera", self.task.robot.their_camera))
        self.tcp.pose = self._tool()
        self.steps, self.second = 0, False
        return self.get_obs(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One control period."""
        if self.task.first_steps and self.steps >= ADVANCE_STEPS:
            self.advance_to_next_subtask()
        self._move(action)
        self.steps += 1
        self.tcp.pose = self._tool()
        done = self._far() and self.is_final_subtask()
        return self.get_obs(), float(done), done, False, {"elapsed_steps": self.steps, "success": done}

    def get_obs(self) -> dict[str, Any]:
        """Images, 0 .. 1, where the mode asks for them."""
        if self._obs_mode != "image":
            return {}
        height, width, _ = self.record["image"][0]
        picture = np.broadcast_to(np.append(self._colour(), 1.0).astype(np.float32), (height, width, 4))
        return {"image": {name: {"Color": picture} for name in self._cameras}}

    def get_language_instruction(self) -> str:
        """The recorded one, or the second."""
        return "place apple into top drawer" if self.second else self.record["instruction"]

    def is_final_subtask(self) -> bool:
        """Whether nothing else is asked for after this."""
        return self.second or not self.task.first_steps

    def advance_to_next_subtask(self) -> None:
        """The second instruction."""
        self.second = True


class DoubleTwin(_Double):
    """ManiSkill3's environment."""

    def __init__(self, environment: str, **arguments: Any) -> None:
        task = next(task for task in TASKS.values() for variant in task.sets.get(TWINS, ())
                    if variant.environment == environment)
        super().__init__(record_of(task.name, task.robot))
        self.camera = task.robot.their_camera
        self.environment, self.arguments = environment, arguments
        self._obs_mode = arguments["obs_mode"]
        self.source_obj_name, self.target_obj_name = "source", "target"
        self.objs = {"source": self._object(SOURCE_M), "target": self._object(TARGET_M)}
        self.unwrapped = self

    @property
    def agent(self) -> Any:
        """The robot, its joints and links."""
        link = SimpleNamespace(pose=self._tool())
        return SimpleNamespace(robot=SimpleNamespace(
            pose=self.base, get_qpos=lambda: _Tensor(self.joints[None].astype(np.float32)),
            links_map={"ee_gripper_link": link}))

    def reset(self, seed: int, options: dict[str, Any]) -> tuple[dict[str, Any], dict]:
        """Everything to its place."""
        self._restart({"seed": seed, **options})
        return self.get_obs(), {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        """One control period."""
        self._move(action)
        return self.get_obs(), 0.0, False, False, {"success": _Tensor([self._far()])}

    def get_obs(self) -> dict[str, Any]:
        """Images where the mode asks for them."""
        if self._obs_mode == "none":
            return {}
        picture = np.broadcast_to((255 * self._colour()).astype(np.uint8), (1, *self.record["image"][0]))
        return {"sensor_data": {self.camera: {"rgb": _Tensor(picture)}}}

    def get_language_instruction(self) -> list[str]:
        """One for each of its one environments."""
        return [self.record["instruction"]]


def record_of(task: str, robot: Robot) -> Mapping[str, Any]:
    """What was recorded of a task, or of another one of the same robot."""
    own = RECORD.get(f"{task}/visual_matching")
    other = "google_robot_pick_horizontal_coke_can" if robot is GOOGLE else "widowx_stack_cube"
    return own or {**RECORD[f"{other}/visual_matching"], "instruction": task.replace("_", " ")}


def double_make(environment: str, as_gym: bool, **arguments: Any) -> DoubleEnv:
    """ManiSkill2_real2sim's `make`."""
    assert not as_gym
    return DoubleEnv(environment, **arguments)


def write_checkout(folder: Path, *variants: Variant) -> Checkout:
    """A checkout with empty files in the place of the data of variants, and small photos."""
    for part in ("mani_skill2_real2sim/envs/custom_scenes/base_env.py",):
        _touch(folder / "ManiSkill2_real2sim" / part)
    data = folder / "ManiSkill2_real2sim" / "data"
    (data / "custom").mkdir(parents=True, exist_ok=True)
    for variant in variants:
        _touch(data / f"hab2_bench_assets/stages/{variant.scene}.glb")
        for model in variant.models:
            _touch(data / f"custom/models/{model}/collision.obj")
            _touch(data / f"custom/models/{model}/textured.dae")
        _touch(data / f"custom/{variant.station}.urdf")
        for start in variant.starts:
            if start.overlay and not (data / "real_inpainting" / start.overlay).exists():
                (data / "real_inpainting").mkdir(exist_ok=True)
                cv2.imwrite(str(data / "real_inpainting" / start.overlay), np.full((4, 4, 3), 50, np.uint8))
    return Checkout(folder / "ManiSkill2_real2sim", data)


def double_world(folder: Path) -> Callable[[Robot, str], World]:
    """Opens doubles as `sim_bridges.simpler.world.open_world` opens the genuine worlds."""
    checkout = write_checkout(folder, *(
        variant for task in TASKS.values() for variants in task.sets.values() for variant in variants))
    torch = SimpleNamespace(tensor=np.array, cuda=SimpleNamespace(is_available=lambda: False))

    def open_world(robot: Robot, set_name: str) -> World:
        if set_name == TWINS:
            return TwinWorld(robot, Skills(SimpleNamespace(make=DoubleTwin), torch))
        return GenuineWorld(robot, checkout, double_make)

    return open_world


def double_sim(contract: RobotContract) -> SimplerSim:
    """A SimplerSim on doubles; a factory as the registry takes it."""
    import tempfile

    return SimplerSim(contract, double_world(Path(tempfile.mkdtemp(prefix="simpler_double_"))))


def _same(variant: Variant, arguments: Mapping[str, Any]) -> bool:
    return all(arguments.get(key) == value for key, value in variant.build.items() if key != "shader_dir")


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _turned(turn: np.ndarray, point: np.ndarray) -> np.ndarray:
    return matrix_from(turn) @ point

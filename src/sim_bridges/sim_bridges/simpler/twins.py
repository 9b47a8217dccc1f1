"""A robot in, ManiSkill3's digital twins of SIMPLER's WidowX tasks out; its package, its downloaded data.

One environment on the CPU, as SIMPLER's; images by a GPU where PyTorch finds one, else by the CPU.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_bridges.simpler.addresses import Scene
from sim_bridges.simpler.robots import Robot
from sim_bridges.simpler.vulkan import check_vulkan, explain
from vla_policy.errors import ConfigError
from vla_policy.types import Pose

Vector = NDArray[np.float64]

PACKAGE = "mani-skill==3.0.1"
ASSETS = {"bridge_v2_real2sim": "tasks/bridge_v2_real2sim_dataset/custom", "widowx250s": "robots/widowx/wx250s.urdf"}
SEED = 0  # nothing that the layout's number leaves open
OBSERVED = "rgb+segmentation"


@dataclass(frozen=True, slots=True)
class Skills:
    """What the twins are made with and of."""

    gymnasium: Any
    torch: Any


def open_twins(robot: Robot) -> TwinWorld:
    """ManiSkill3's twins. Raises: ConfigError naming what is missing on this machine."""
    skills = import_maniskill()
    check_vulkan()
    return TwinWorld(robot, skills)


class TwinWorld:
    """Implements `sim_bridges.simpler.world.World`."""

    def __init__(self, robot: Robot, skills: Skills) -> None:
        self._robot = robot
        self._skills = skills
        self._env: Any = None
        self._made = ""
        self._info: dict[str, Any] = {}

    @property
    def env(self) -> Any:
        """The genuine environment, without gymnasium's wrappers; None before the first scene."""
        return self._env

    def begin(self, scene: Scene) -> None:
        """Make a start scene. Raises: ConfigError for a driver that cannot render."""
        if self._made != scene.variant.environment:
            self.close()
            self._env = self._make(scene.variant.environment)
            self._made = scene.variant.environment
        layout = self._skills.torch.tensor([scene.start.layout])
        with _rendering_off(self._env):
            self._env.reset(seed=SEED, options={"reconfigure": True, "episode_id": layout})
        self._info = {}

    def step(self, action: Vector) -> None:
        """One control period with an action (7,)."""
        with _rendering_off(self._env):
            self._info = self._env.step(np.asarray(action, np.float32))[-1]

    def image(self) -> NDArray[np.uint8]:
        """What the camera sees with the photo behind it, (H, W, 3) RGB."""
        picture = self._env.get_obs()["sensor_data"][self._robot.their_camera]["rgb"][0]
        return np.ascontiguousarray(picture.cpu().numpy())

    @property
    def joints(self) -> Vector:
        """Joint positions [rad or m]."""
        return self._env.agent.robot.get_qpos()[0].cpu().numpy().astype(np.float64)

    @property
    def tool(self) -> Pose:
        """Pose of the tool in the frame of the robot's base."""
        robot = self._env.agent.robot
        numbers = (robot.pose.inv() * robot.links_map[self._robot.tool_link].pose).raw_pose[0].cpu().numpy()
        return Pose(numbers[:3].astype(np.float64), np.roll(numbers[3:].astype(np.float64), -1))

    def places_m(self) -> tuple[Vector, Vector]:
        """Source and target object, (3,) each, in the base's frame."""
        to_base = self._env.agent.robot.pose.inv()
        names = self._env.source_obj_name, self._env.target_obj_name
        source, target = ((to_base * self._env.objs[name].pose).raw_pose[0, :3].cpu().numpy() for name in names)
        return source.astype(np.float64), target.astype(np.float64)

    @property
    def instruction(self) -> str:
        """What the environment asks for."""
        return str(self._env.get_language_instruction()[0])

    def next_instruction(self) -> None:
        """These tasks have one instruction."""

    def solved(self) -> bool:
        """The environment's `success` after the last step."""
        return bool(self._info["success"].item()) if "success" in self._info else False

    def close(self) -> None:
        """Free the scene and its renderer."""
        if self._env is not None:
            self._env.close()
            self._env, self._made = None, ""

    def _make(self, environment: str) -> Any:
        render = "gpu" if self._skills.torch.cuda.is_available() else "cpu"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._skills.gymnasium.make(
                    environment, obs_mode=OBSERVED, num_envs=1, sim_backend="cpu", render_backend=render,
                    control_mode=self._robot.control_mode,
                    sim_config={"sim_freq": self._robot.sim_hz, "control_freq": self._robot.rate_hz}).unwrapped
        except RuntimeError as problem:
            raise explain(problem) from problem


@contextmanager
def _rendering_off(env: Any) -> Iterator[None]:
    """While it lasts the environment's own observations are empty; it renders when `image` asks."""
    env._obs_mode = "none"
    try:
        yield
    finally:
        env._obs_mode = OBSERVED


def import_maniskill() -> Skills:
    """What the twins are made with. Raises: ConfigError naming the package or data missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import gymnasium
            import mani_skill.envs  # noqa: F401 - registers the twins
            import torch
            from mani_skill import ASSET_DIR, logger
    except ImportError as problem:
        raise ConfigError(f"ManiSkill3 cannot be imported: {problem}; install it: pip install {PACKAGE}") from problem
    logger.setLevel(logging.ERROR)  # it warns at every reset of how its own twins are made
    check_assets(Path(ASSET_DIR))
    return Skills(gymnasium, torch)


def check_assets(folder: Path) -> None:
    """Raises: ConfigError for data that was not downloaded; ManiSkill itself would wait for an answer at a terminal."""
    missing = [name for name, part in ASSETS.items() if not (folder / part).exists()]
    if missing:
        commands = " && ".join(f"python -m mani_skill.utils.download_asset {name}" for name in missing)
        raise ConfigError(f"{folder}: got no {', '.join(missing)}, expected ManiSkill3's data; get it: {commands}")

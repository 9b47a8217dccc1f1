"""A robot in, SIMPLER's genuine environments of ManiSkill2_real2sim out, built with the arguments of its own scripts.

SIMPLER builds an environment for every episode. Here one is kept while episodes are of its variant, and each episode
begins as in a new one: the same random numbers, the same two resets, a scene made anew.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from math import cos, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim_bridges.simpler.addresses import Scene
from sim_bridges.simpler.checkout import Checkout, find_checkout
from sim_bridges.simpler.protocol import Start, Variant
from sim_bridges.simpler.robots import Robot
from sim_bridges.simpler.vulkan import check_vulkan, explain
from vla_policy.errors import ConfigError, nearest
from vla_policy.types import Pose

Vector = NDArray[np.float64]

PACKAGES = ("sapien==2.2.2 numpy==1.26.4 gymnasium==0.28.1 opencv-python-headless==4.11.0.86 scipy transforms3d "
            "trimesh ruckig imageio h5py tqdm")
BUILD_SEED = 2022  # what SIMPLER's environments seed themselves with when they are built
SHADER_VARIABLE, SHADERS = "SIMPLER_SHADER", ("ibl", "rt")


def open_genuine(robot: Robot, environment: Mapping[str, str] = os.environ) -> GenuineWorld:
    """The genuine environments of SIMPLER_ROOT. Raises: ConfigError naming what is missing on this machine."""
    checkout = find_checkout(environment)
    shader = chosen_shader(environment)
    make = import_genuine(checkout)
    check_vulkan()
    return GenuineWorld(robot, checkout, make, shader)


class GenuineWorld:
    """Implements `sim_bridges.simpler.world.World`.

    make: ManiSkill2_real2sim's function of that name. shader: see `chosen_shader`.
    """

    def __init__(self, robot: Robot, checkout: Checkout, make: Callable[..., Any], shader: str = "") -> None:
        self._robot = robot
        self._checkout = checkout
        self._shader = shader
        self._make = make
        self._variant: Variant | None = None
        self._env: Any = None
        self._info: dict[str, Any] = {}

    @property
    def env(self) -> Any:
        """The genuine environment, without gymnasium's wrappers; None before the first scene."""
        return self._env

    def begin(self, scene: Scene) -> None:
        """Make a start scene. Raises: ConfigError naming missing data or a driver that cannot render."""
        if self._variant != scene.variant:
            self._open(scene.variant)
        else:
            self._env.reset(seed=BUILD_SEED, options={"reconfigure": True})
        if scene.start.overlay is not None:
            self._env.rgb_overlay_img = _photo(self._checkout, scene.start.overlay)
        self._env.reset(options=reset_options(scene.start))
        camera = self._robot.their_camera
        self._env._cameras = {camera: self._env._cameras[camera]}  # the others are of no use to a policy
        self._info = {}

    def step(self, action: Vector) -> None:
        """One control period with an action (7,)."""
        self._info = self._env.step(action)[-1]

    def image(self) -> NDArray[np.uint8]:
        """What the camera sees with the photo behind it, (H, W, 3) RGB."""
        self._env._obs_mode = "image"
        try:
            colour = self._env.get_obs()["image"][self._robot.their_camera]["Color"][..., :3]
        finally:
            self._env._obs_mode = "state_dict"
        return np.clip(colour * 255, 0, 255).astype(np.uint8)

    @property
    def joints(self) -> Vector:
        """Joint positions [rad or m]."""
        return np.asarray(self._env.agent.robot.get_qpos(), np.float64)

    @property
    def tool(self) -> Pose:
        """Pose of the tool in the frame of the robot's base."""
        pose = self._env.agent.robot.pose.inv() * self._env.tcp.pose
        return Pose(np.asarray(pose.p, np.float64), np.roll(np.asarray(pose.q, np.float64), -1))

    def places_m(self) -> tuple[Vector, Vector]:
        """Source and target object of WidowX's tasks and of move near, (3,) each, in the base's frame."""
        to_base = self._env.agent.robot.pose.inv()
        objects = self._env.episode_source_obj, self._env.episode_target_obj
        source, target = (np.asarray((to_base * one.pose).p, np.float64) for one in objects)
        return source, target

    @property
    def instruction(self) -> str:
        """What the environment asks for now."""
        return str(self._env.get_language_instruction())

    def next_instruction(self) -> None:
        """Go on to the last instruction if it is not the present one."""
        if not self._env.is_final_subtask():
            self._env.advance_to_next_subtask()

    def solved(self) -> bool:
        """The environment's `success` after the last step."""
        return bool(self._info.get("success", False))

    def close(self) -> None:
        """Free the scene and its renderer."""
        if self._env is not None:
            self._env.close()
            self._env, self._variant = None, None

    def _open(self, variant: Variant) -> None:
        self.close()
        self._checkout.check_data(variant)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # SAPIEN and gymnasium warn of their age
                self._env = self._make(variant.environment, as_gym=False, obs_mode="image", **self._arguments(variant))
        except RuntimeError as problem:
            raise explain(problem) from problem
        except (FileNotFoundError, OSError) as problem:
            raise ConfigError(f"{variant.environment}: {problem}") from problem
        self._env._obs_mode = "state_dict"  # a step would render
        self._variant = variant

    def _arguments(self, variant: Variant) -> dict[str, Any]:
        robot = self._robot
        arguments: dict[str, Any] = {
            "robot": variant.body, "sim_freq": robot.sim_hz, "control_freq": robot.rate_hz,
            "control_mode": robot.control_mode, "scene_name": variant.scene, "camera_cfgs": {"add_segmentation": True},
            **variant.build}
        if variant.station is not None:
            arguments["station_name"] = variant.station
        overlay = variant.starts[0].overlay
        if overlay is not None:
            arguments |= {"rgb_overlay_path": str(self._checkout.overlay(overlay)),
                          "rgb_overlay_cameras": [robot.their_camera]}
        if self._shader and "shader_dir" in arguments:
            arguments["shader_dir"] = self._shader
        return arguments


def chosen_shader(environment: Mapping[str, str] = os.environ) -> str:
    """SIMPLER_SHADER: how the cabinet's tasks are drawn in place of ray tracing, or "". Raises: ConfigError."""
    shader = environment.get(SHADER_VARIABLE, "")
    if shader and shader not in SHADERS:
        raise ConfigError(f"{SHADER_VARIABLE}: got '{shader}'; {nearest(shader, SHADERS)}")
    return shader


def import_genuine(checkout: Checkout) -> Callable[..., Any]:
    """ManiSkill2_real2sim's function that makes an environment, of this very checkout.

    Raises: ConfigError naming the package that is missing or misfits.
    """
    setup = f"scripts/setup_simplerenv.sh --venv .venv-simpler {checkout.real2sim.parent}"
    if int(np.__version__.partition(".")[0]) >= 2:
        raise ConfigError(f"SimplerEnv: got numpy {np.__version__}, expected 1.26: with numpy 2 SAPIEN 2 reads poses "
                          f"wrongly and lets objects fall through the table; make an environment for it: {setup}")
    path = str(checkout.real2sim)
    if path not in sys.path:
        sys.path.insert(0, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mani_skill2_real2sim.envs
            from mani_skill2_real2sim.utils.registration import make
    except (ImportError, AttributeError) as problem:
        python = ".".join(map(str, sys.version_info[:2]))
        raise ConfigError(
            f"ManiSkill2_real2sim cannot be imported on Python {python} with numpy {np.__version__}: {problem}; "
            f"install what it needs: {setup} (pip install {PACKAGES}; SAPIEN 2 has wheels up to Python 3.11)"
        ) from problem
    if not mani_skill2_real2sim.envs.__file__.startswith(path):
        raise ConfigError(f"mani_skill2_real2sim: got {mani_skill2_real2sim.envs.__file__}, expected that of "
                          f"{checkout.real2sim}; another one was imported before")
    return make


def reset_options(start: Start) -> dict[str, Any]:
    """A start in the words of SIMPLER's environments."""
    x_m, y_m, yaw_rad = start.base
    # Turned by `yaw_rad` from where it looks along -x: quaternion w x y z.
    turn = np.array([-sin(yaw_rad / 2), 0.0, 0.0, cos(yaw_rad / 2)])
    scene: dict[str, Any] = {}
    if start.object_xy_m is not None:
        scene["init_xy"] = np.array(start.object_xy_m)
    if start.layout is not None:
        scene["episode_id"] = start.layout
    return {"robot_init_options": {"init_xy": np.array([x_m, y_m]), "init_rot_quat": turn}, "obj_init_options": scene}


def _photo(checkout: Checkout, name: str) -> NDArray[np.float64]:
    """(H, W, 3) RGB, 0 .. 1, as the environments keep it."""
    return cv2.cvtColor(cv2.imread(str(checkout.overlay(name))), cv2.COLOR_BGR2RGB) / 255

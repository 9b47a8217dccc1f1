"""A checkout and a scene in, CALVIN's genuine play table, oracle and sentences out, used as they are.

No data set is needed: the environment is composed from calvin_env's own configuration. What this module relies on
of the genuine classes is written down in `PlayTable` and `Oracle`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sim_bridges.calvin.checkout import Checkout, chosen_scene, find_checkout
from sim_bridges.calvin.conditions import TASKS
from vla_policy.errors import ConfigError, VlaError

PACKAGES = "pybullet==3.2.7 gym hydra-core hydra-colorlog numpy-quaternion gitpython opencv-python-headless scipy"


class PlayTable(Protocol):
    """What is used of calvin_env's PlayTableSimEnv.

    cid: number of the physics client. robot: target_pos, target_orn (Euler), max_rel_pos, max_rel_orn, the two
    magic_scaling_factors, gripper_action. scene: movable_objects with their names, surfaces. cameras: each with a name
    and render() -> (rgb, depth).
    """

    cid: int
    cameras: list[Any]
    robot: Any
    scene: Any

    def load(self) -> None:
        """Build the whole world anew."""

    def reset(self, robot_obs: NDArray[np.float64], scene_obs: NDArray[np.float64]) -> dict[str, Any]:
        """Put everything in its place; returns an observation."""

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        """One thirtieth of a second; returns observation, 0, False and info."""

    def get_info(self) -> dict[str, Any]:
        """What the oracle judges by: contacts, poses, lights, joints."""

    def close(self) -> None:
        """End the physics server's client."""


class Oracle(Protocol):
    """What is used of calvin_env's Tasks."""

    def get_task_info_for_set(self, start_info: dict[str, Any], end_info: dict[str, Any],
                              task_filter: set[str]) -> set[str]:
        """Which tasks of the filter were done between two infos."""


@dataclass(frozen=True, slots=True)
class World:
    """scene: A, B, C or D. sentences: task -> the sentences that ask for it; the benchmark says the first."""

    table: PlayTable
    oracle: Oracle
    sentences: Mapping[str, Sequence[str]]
    scene: str


def open_world() -> World:
    """The genuine world of the environment's CALVIN_ROOT and CALVIN_SCENE. Raises: ConfigError, VlaError."""
    return open_checkout(find_checkout(), chosen_scene())


def open_checkout(checkout: Checkout, scene: str = "D") -> World:
    """The genuine world of a checkout. Raises: ConfigError naming what is missing; VlaError where one is open."""
    checkout.check_scene(scene)
    modules = import_genuine(checkout)
    tasks = modules.omegaconf.OmegaConf.load(checkout.tasks)
    sentences = modules.omegaconf.OmegaConf.to_container(modules.omegaconf.OmegaConf.load(checkout.sentences))
    for where, names in ((checkout.tasks, set(tasks.tasks)), (checkout.sentences, set(sentences))):
        if missing := sorted(set(TASKS) - names):
            raise ConfigError(f"{where}: got no {', '.join(missing)}, expected CALVIN's {len(TASKS)} tasks")
    return World(_build_table(modules, checkout, scene), modules.hydra.utils.instantiate(tasks), sentences, scene)


@dataclass(frozen=True, slots=True)
class GenuineModules:
    """What the genuine code is made with and of."""

    hydra: ModuleType
    omegaconf: ModuleType
    play_table: ModuleType
    pybullet: ModuleType


def import_genuine(checkout: Checkout) -> GenuineModules:
    """Import calvin_env of this very checkout. Raises: ConfigError naming the package that is missing or misfits."""
    path = str(checkout.env)
    if path not in sys.path:
        sys.path.insert(0, path)
    logging.getLogger("hydra").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hydra, gym and calvin_env warn of each other's age
            import hydra
            import omegaconf
            import pybullet
            from calvin_env.envs import play_table_env
    except (ImportError, RuntimeError, AttributeError) as problem:
        python = ".".join(map(str, sys.version_info[:2]))
        raise ConfigError(
            f"calvin_env cannot be imported on Python {python} with numpy {np.__version__}: {problem}; install what "
            f"it needs: scripts/setup_calvin.sh {checkout.root} (pip install {PACKAGES}; pybullet has wheels for "
            "Python 3.10 and 3.11)") from problem
    if not play_table_env.__file__.startswith(path):
        raise ConfigError(f"calvin_env: got {play_table_env.__file__}, expected that of {checkout.env}; "
                          "another one was imported before")
    if not pybullet.isNumpyEnabled():
        raise ConfigError("pybullet: got one that was built without numpy, expected the wheel: "
                          "pip install --force-reinstall --only-binary :all: pybullet==3.2.7")
    return GenuineModules(hydra, omegaconf, play_table_env, pybullet)


def close_table(table: PlayTable) -> None:
    """End its physics client, once: the table would end it again when it is collected, and fail."""
    table.close()
    table.cid = -1


def _build_table(modules: GenuineModules, checkout: Checkout, scene: str) -> PlayTable:
    if modules.pybullet.isConnected():  # some of calvin_env's calls reach the first physics client only
        raise VlaError("calvin: got a second table in one process, expected one; close the first, "
                       "or use one process for each")
    # It asks git for a commit and fails where calvin_env is not a repository of its own.
    modules.play_table.get_git_commit_hash = lambda path: "unknown"
    config = "calvin_scene_D_eval" if scene == "D" else f"calvin_scene_{scene}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with modules.hydra.initialize_config_dir(str(checkout.env / "conf"), version_base=None):
            composed = modules.hydra.compose(
                "config_data_collection", overrides=["cameras=static_and_gripper", f"scene={config}"])
        composed.env.use_egl = False
        return modules.hydra.utils.instantiate(composed.env, show_gui=False, use_vr=False, use_scene_info=True)

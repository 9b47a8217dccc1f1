"""CALVIN_ROOT or an installed calvin_env in, the places of CALVIN's code, data and texts out, each checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sim_bridges.checkouts import installed_root, named_root
from vla_policy.errors import ConfigError, nearest

ROOT_VARIABLE, SCENE_VARIABLE = "CALVIN_ROOT", "CALVIN_SCENE"
SCENES = ("A", "B", "C", "D")
HOW_TO_GET = ("git clone --recurse-submodules https://github.com/mees/calvin.git DIR && "
              "scripts/setup_calvin.sh DIR && export CALVIN_ROOT=DIR")
_ENV_PARTS = ("calvin_env/envs/play_table_env.py", "conf/config_data_collection.yaml")
_TEXTS = Path("calvin_models/conf")
_TASKS = _TEXTS / "callbacks/rollout/tasks/new_playtable_tasks.yaml"
_SENTENCES = _TEXTS / "annotations/new_playtable_validation.yaml"


@dataclass(frozen=True, slots=True)
class Checkout:
    """root: of mees/calvin. env: of mees/calvin_env, its submodule."""

    root: Path
    env: Path

    @property
    def tasks(self) -> Path:
        """The oracle's definition of the 34 tasks."""
        return self.root / _TASKS

    @property
    def sentences(self) -> Path:
        """The sentences that the benchmark instructs with."""
        return self.root / _SENTENCES

    def check_scene(self, scene: str) -> None:
        """Raises: ConfigError where the meshes of a scene are missing or are Git LFS pointers."""
        table = self.env / f"data/calvin_table_{scene}/urdf/calvin_table_{scene}.urdf"
        if not table.is_file() or table.read_bytes()[:7] == b"version":
            raise ConfigError(f"{table}: got no table of scene {scene}, expected CALVIN's data; "
                              f"complete the checkout: git -C {self.env} checkout -- data (and git lfs pull)")


def find_checkout(environment: Mapping[str, str] = os.environ) -> Checkout:
    """The checkout that CALVIN_ROOT names, else that of an installed calvin_env (`pip install -e`).

    Raises: ConfigError saying what is missing and the command that brings it.
    """
    root = named_root(ROOT_VARIABLE, environment)
    checkout = _installed() if root is None else Checkout(root, root / "calvin_env")
    _check(checkout, root is not None)
    return checkout


def chosen_scene(environment: Mapping[str, str] = os.environ) -> str:
    """Which of CALVIN's four tables: CALVIN_SCENE, or D. Raises: ConfigError for another."""
    scene = environment.get(SCENE_VARIABLE, "") or "D"
    if scene not in SCENES:
        raise ConfigError(f"{SCENE_VARIABLE}: got '{scene}'; {nearest(scene, SCENES)}")
    return scene


def _installed() -> Checkout:
    env = installed_root("calvin_env")
    if env is None:
        raise ConfigError(f"{ROOT_VARIABLE} is not set and no calvin_env is installed; get CALVIN and name it: "
                          f"{HOW_TO_GET}")
    return Checkout(env.parent, env)


def _check(checkout: Checkout, by_variable: bool) -> None:
    where = f"{ROOT_VARIABLE}={checkout.root}" if by_variable else f"calvin_env at {checkout.env}"
    if not checkout.root.is_dir():
        raise ConfigError(f"{where}: got no such folder, expected a checkout of mees/calvin: {HOW_TO_GET}")
    for part in _ENV_PARTS:
        if not (checkout.env / part).is_file():
            raise ConfigError(f"{where}: got no {checkout.env / part}, expected the submodule calvin_env; get it: "
                              f"git -C {checkout.root} submodule update --init calvin_env")
    for part in (checkout.tasks, checkout.sentences):
        if not part.is_file():
            raise ConfigError(f"{where}: got no {part}, expected mees/calvin around its submodule calvin_env; "
                              f"set {ROOT_VARIABLE} to that checkout: {HOW_TO_GET}")

"""SIMPLER_ROOT or an installed ManiSkill2_real2sim in, the places of SIMPLER's code and data out, each checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sim_bridges.checkouts import installed_root, named_root
from sim_bridges.simpler.protocol import Variant
from vla_policy.errors import ConfigError

ROOT_VARIABLE, DATA_VARIABLE = "SIMPLER_ROOT", "MS2_REAL2SIM_ASSET_DIR"
HOW_TO_GET = ("git clone --recurse-submodules https://github.com/simpler-env/SimplerEnv.git DIR && "
              "scripts/setup_simplerenv.sh --venv .venv-simpler DIR && export SIMPLER_ROOT=DIR")
INSTEAD = "or play ManiSkill3's digital twins of WidowX's tasks: TASK/twins, --benchmark twins"
_ENVIRONMENTS = "mani_skill2_real2sim/envs/custom_scenes/base_env.py"
VISUALS = ("obj", "dae", "glb")
_NAMED = 5  # so many of the missing files are named


@dataclass(frozen=True, slots=True)
class Checkout:
    """real2sim: of simpler-env/ManiSkill2_real2sim. data: its meshes and photos, or those of MS2_REAL2SIM_ASSET_DIR."""

    real2sim: Path
    data: Path

    def overlay(self, name: str) -> Path:
        """The photo that is laid over the background."""
        return self.data / "real_inpainting" / name

    def check_data(self, variant: Variant) -> None:
        """Raises: ConfigError naming the meshes and photos that a variant needs and the checkout lacks."""
        missing = self.missing(variant)
        if missing:
            names = ", ".join(str(path) for path in missing[:_NAMED])
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise ConfigError(f"{self.data}: got no {names}{more}, expected the data that {variant.environment} loads; "
                              f"complete the checkout: git -C {self.real2sim} checkout HEAD -- data")

    def missing(self, variant: Variant) -> list[Path]:
        """The files, in the data folder, that a variant needs and that are not there."""
        return list(self._missing(variant))

    def _missing(self, variant: Variant) -> Iterator[Path]:
        if not variant.scene.startswith("dummy"):
            yield from _absent(self.data, f"hab2_bench_assets/stages/{variant.scene}.glb")
        for model in variant.models:
            yield from _absent(self.data, f"custom/models/{model}/collision.obj")
            if not any((self.data / f"custom/models/{model}/textured.{kind}").is_file() for kind in VISUALS):
                yield Path(f"custom/models/{model}/textured.dae")
        if variant.station is not None:
            yield from _absent(self.data, f"custom/{variant.station}.urdf")
        for overlay in dict.fromkeys(start.overlay for start in variant.starts if start.overlay):
            yield from _absent(self.data, f"real_inpainting/{overlay}")


def find_checkout(environment: Mapping[str, str] = os.environ) -> Checkout:
    """The checkout that SIMPLER_ROOT names, else an installed ManiSkill2_real2sim (`pip install -e`).

    Raises: ConfigError saying what is missing and the command that brings it.
    """
    root = named_root(ROOT_VARIABLE, environment)
    if root is None:
        real2sim = installed_root("mani_skill2_real2sim")
        if real2sim is None:
            raise ConfigError(f"{ROOT_VARIABLE} is not set and no mani_skill2_real2sim is installed; get SimplerEnv "
                              f"and name it: {HOW_TO_GET}; {INSTEAD}")
    else:
        real2sim = root / "ManiSkill2_real2sim"
        if not root.is_dir():
            raise ConfigError(f"{ROOT_VARIABLE}={root}: got no such folder, expected a checkout of "
                              f"simpler-env/SimplerEnv: {HOW_TO_GET}")
        if not (real2sim / _ENVIRONMENTS).is_file():
            raise ConfigError(f"{ROOT_VARIABLE}={root}: got no {real2sim / _ENVIRONMENTS}, expected the submodule "
                              f"ManiSkill2_real2sim; get it: git -C {root} submodule update --init --recursive")
    data = named_root(DATA_VARIABLE, environment) or real2sim / "data"
    if not (data / "custom").is_dir():
        raise ConfigError(f"{data}: got no folder custom, expected SimplerEnv's meshes; complete the checkout: "
                          f"git -C {real2sim} checkout HEAD -- data, or correct {DATA_VARIABLE}")
    return Checkout(real2sim, data)


def _absent(root: Path, part: str) -> Iterator[Path]:
    if not (root / part).is_file():
        yield Path(part)

"""A name like `tabletop` in, the path of its shipped contract, bundle or mapping out; paths pass through."""

from __future__ import annotations

import os
from pathlib import Path

from vla_policy.errors import ConfigError, nearest

PACKAGE = "vla_policy"
SERVERS = ("ws://", "wss://")


def find_contract(name_or_path: str) -> Path:
    """Robot contract by name (config/robots/NAME.yaml) or path. Raises: ConfigError naming the nearest."""
    return _find(name_or_path, "config/robots", ".yaml")


def find_sim_contract(sim: str, tasks: str) -> Path:
    """Contract of a simulator: SIM.yaml; where it has several robots SIM_ROBOT.yaml, by the first word of its tasks.

    tasks: as `widowx_stack_cube`, of one robot, several separated by commas. Raises: ConfigError naming the robots
    where the tasks do not say which.
    """
    folders = [root / "config/robots" for root in share_roots()]
    robots = sorted({path.stem for folder in folders for path in folder.glob(f"{sim}_*.yaml")})
    if not robots or any((folder / f"{sim}.yaml").is_file() for folder in folders):
        return find_contract(sim)
    asked = {f"{sim}_{task.strip().partition('_')[0]}" for task in tasks.split(",")}
    if len(asked) != 1 or not asked <= set(robots):
        raise ConfigError(f"{sim}: got tasks '{tasks}', expected those of one of its robots; name it: "
                          f"robot {' or '.join(robots)}")
    return find_contract(asked.pop())


def find_policy(name_or_path: str) -> Path:
    """Policy bundle by name (policies/NAME) or path of its folder. Raises: ConfigError naming the nearest."""
    return _find(name_or_path, "policies", "")


def find_teleop(name_or_path: str) -> Path:
    """A teleoperation device's mapping by name (config/teleop/NAME.yaml) or path. Raises: ConfigError."""
    return _find(name_or_path, "config/teleop", ".yaml")


def find_real_benchmark(name_or_path: str) -> Path:
    """Benchmark on a real robot by name (config/benchmarks/NAME.yaml) or path. Raises: ConfigError with the nearest."""
    return _find(name_or_path, "config/benchmarks", ".yaml")


def is_server(policy: str) -> bool:
    """Whether a policy is named by the address of a policy server rather than as a bundle."""
    return policy.startswith(SERVERS)


def _find(name_or_path: str, folder: str, suffix: str) -> Path:
    path = Path(os.path.expanduser(name_or_path))  # no shell does it for a launch argument
    bare = path.name == name_or_path
    roots = share_roots() if bare else []
    # Names come first: a folder `tabletop` that happens to lie about here must not hide the shipped one.
    for candidate in (*(root / folder / f"{name_or_path}{suffix}" for root in roots), path):
        if candidate.exists():
            return candidate
    if not bare:
        raise ConfigError(f"{path}: no such file or folder; give an existing path or the name of a shipped one")
    shipped = sorted({entry.stem for root in roots for entry in (root / folder).glob(f"*{suffix}")})
    hint = nearest(name_or_path, shipped)
    raise ConfigError(f"got '{name_or_path}', expected a path or a name in {folder}; {hint}")


def share_roots() -> list[Path]:
    """Where shipped files are looked for: beside the sources, then in every ROS prefix, then in Python's prefix."""
    beside_sources = Path(__file__).resolve().parents[1]
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    installed = [Path(prefix) / "share" / PACKAGE for prefix in prefixes]
    return [root for root in (beside_sources, *installed) if (root / "config").is_dir()]

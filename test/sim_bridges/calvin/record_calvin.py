"""CALVIN_ROOT in, calvin_genuine.json out: what genuine CALVIN is like, which the double and the tests hold to.

`CALVIN_ROOT=DIR python test/sim_bridges/calvin/record_calvin.py` (about two minutes: CALVIN draws its own sequences).
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sim_bridges.calvin.checkout import find_checkout
from sim_bridges.calvin.states import fnv0_32
from sim_bridges.calvin.world import close_table, open_checkout

FIXTURE = Path(__file__).with_name("calvin_genuine.json")
RECORDED_SEQUENCES = 100
STEPS = 60


def genuine_benchmark(root: Path) -> tuple[ModuleType, Any]:
    """CALVIN's own sampler module and its `get_env_state_for_initial_condition`, without the packages they import.

    pyhash does not build any more; fnv0_32 stands for it (its value for 'test' is pyhash's own: 3910690890).
    """
    evaluation = root / "calvin_models" / "calvin_agent" / "evaluation"
    wanted = {"temp_seed", "get_env_state_for_initial_condition"}
    tree = ast.parse((evaluation / "utils.py").read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    names: dict[str, Any] = {"np": np, "pi": math.pi, "contextlib": contextlib, "hasher": fnv0_32}
    exec(compile(tree, "utils.py", "exec"), names)
    for name in ("calvin_agent", "calvin_agent.evaluation", "calvin_agent.evaluation.utils"):
        sys.modules[name] = ModuleType(name)
    sys.modules["calvin_agent.evaluation.utils"].temp_seed = names["temp_seed"]
    spec = importlib.util.spec_from_file_location("multistep_sequences", evaluation / "multistep_sequences.py")
    sampler = sys.modules["multistep_sequences"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sampler)
    return sampler, names["get_env_state_for_initial_condition"]


def form(value: Any) -> Any:
    """The shape of an info: keys, types and lengths instead of values."""
    if isinstance(value, dict):
        return {key: form(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        inner = type(value[0]).__name__ if value else ""
        return "contacts" if inner == "tuple" or not value else f"{type(value).__name__} of {len(value)} {inner}"
    return type(value).__name__


def record_table(root: Path) -> dict[str, Any]:
    """Shapes, types, ranges and info of the genuine environment over a short random walk."""
    world = open_checkout(find_checkout({"CALVIN_ROOT": str(root)}))
    table, rng = world.table, np.random.default_rng(0)
    observed = [table.reset()]
    for _ in range(STEPS):
        observed.append(table.step(np.append(rng.uniform(-1, 1, 6), rng.choice([-1, 1])))[0])
    images = {name: {"shape": list(image.shape), "dtype": str(image.dtype)}
              for name, image in observed[0]["rgb_obs"].items()}
    numbers = {name: {"shape": list(observed[0][name].shape), "dtype": str(observed[0][name].dtype),
                      "low": np.min([one[name] for one in observed], axis=0).tolist(),
                      "high": np.max([one[name] for one in observed], axis=0).tolist()}
               for name in ("robot_obs", "scene_obs")}
    robot = {name: getattr(table.robot, name) for name in
             ("max_rel_pos", "max_rel_orn", "magic_scaling_factor_pos", "magic_scaling_factor_orn")}
    recorded = {"images": images, "numbers": numbers, "robot": robot, "info": form(table.get_info()),
                "cameras": [camera.name for camera in table.cameras],
                "movable_objects": [body.name for body in table.scene.movable_objects],
                "sentences": {task: len(sentences) for task, sentences in world.sentences.items()}}
    close_table(table)
    return recorded


def main() -> None:
    """Write calvin_genuine.json."""
    root = find_checkout().root
    sampler, start_numbers = genuine_benchmark(root)
    sequences = sampler.get_sequences(1000, num_workers=2)
    states = {str(state.values()): state for state, _ in sequences}
    numbers = [(state, *start_numbers(state)) for state in states.values()]
    fixture = {
        "sequences": [[list(state.values()), list(tasks)] for state, tasks in sequences[:RECORDED_SEQUENCES]],
        "robot_obs": numbers[0][1].tolist(),
        "states": [[list(state.values()), scene.tolist()] for state, _, scene in numbers],
        "table": record_table(root)}
    FIXTURE.write_text(json.dumps(fixture).replace('], [["', '],\n[["') + "\n")


if __name__ == "__main__":
    main()

"""SIMPLER_ROOT or ManiSkill3 in, simpler_genuine.json out: what the genuine environments are like.

The double and the tests hold to it. `SIMPLER_ROOT=DIR SIMPLER_SHADER=ibl python record_simpler.py genuine` in
SimplerEnv's environment records WidowX's and Google's, `python record_simpler.py twins` in ManiSkill3's the twin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sim_bridges.simpler.addresses import find_scene
from sim_bridges.simpler.protocol import TASKS
from sim_bridges.simpler.robots import ROBOTS
from sim_bridges.simpler.world import World, open_world

FIXTURE = Path(__file__).with_name("simpler_genuine.json")
ADDRESSES = {
    "genuine": ("widowx_stack_cube/visual_matching", "google_robot_pick_horizontal_coke_can/visual_matching",
                "google_robot_open_top_drawer/visual_matching",
                "google_robot_place_apple_in_closed_top_drawer/visual_matching"),
    "twins": ("widowx_stack_cube/twins",)}
STEPS = 12


def form(value: Any) -> Any:
    """The shape of an info: keys and types instead of values."""
    if isinstance(value, dict):
        return {key: form(item) for key, item in value.items()}
    return type(value).__name__


def walk(world: World, address: str) -> dict[str, Any]:
    """What a short random walk sees of an environment, in raw numbers of the world."""
    robot = TASKS[address.partition("/")[0]].robot
    world.begin(find_scene(address, 0, robot))
    rng, joints, tools = np.random.default_rng(0), [world.joints], [world.tool]
    for _ in range(STEPS):
        world.step(np.append(rng.uniform(-0.01, 0.01, 3), [0.0, 0.0, 0.0, 1.0]))
        joints.append(world.joints)
        tools.append(world.tool)
    picture = world.image()
    return {
        "instruction": world.instruction, "info": form(world._info), "image": [list(picture.shape), str(picture.dtype)],
        "start": {"joints": joints[0].tolist(), "position": tools[0].position.tolist(),
                  "quaternion": tools[0].quaternion.tolist()},
        "joints": {"low": np.min(joints, 0).tolist(), "high": np.max(joints, 0).tolist()}}


def main() -> None:
    """Record what this environment can, beside what is recorded already."""
    kind = sys.argv[1]
    found = json.loads(FIXTURE.read_text()) if FIXTURE.is_file() else {}
    for address in ADDRESSES[kind]:
        robot = TASKS[address.partition("/")[0]].robot
        world = open_world(ROBOTS[robot.name], address.partition("/")[2])
        found[address] = walk(world, address)
        world.close()
    lines = (f"{json.dumps(address)}: {json.dumps(record)}" for address, record in found.items())
    FIXTURE.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()

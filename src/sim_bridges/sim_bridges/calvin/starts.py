"""A task and a seed in, a scene in which that task can be done out.

The benchmark's sequences begin in one of 192 scenes, and its later tasks in whatever the earlier ones left. To play
any task by itself, what no such scene has is added: a block in the drawer, a block on another, a block in the hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sim_bridges.calvin.conditions import BLOCKS, RULES, Rule, State, start_states
from sim_bridges.calvin.states import BLOCK_AT, start_numbers
from sim_bridges.calvin.world import World

Vector = NDArray[np.float64]

BLOCK_HEIGHT_M = 0.04
DRAWER_LOW_M, DRAWER_HIGH_M = np.array([0.10, -0.29, 0.362]), np.array([0.25, -0.23, 0.362])  # inside the open drawer
GRASP_STEPS = 12  # control periods until the fingers hold a block between them
_ADDED = ("drawer", "grasped", "stacked_top")  # places of a block that no start state has
_STAY, _CLOSED = np.zeros(6), -1.0


@dataclass(frozen=True, slots=True)
class Start:
    """robot_obs (15,) and scene_obs (24,) to reset to, then CALVIN's own actions (7,) before the episode begins."""

    robot_obs: Vector
    scene_obs: Vector
    actions: tuple[Vector, ...] = ()


def benchmark_start(state: State) -> Start:
    """The start of a benchmark sequence: CALVIN's own numbers, nothing else."""
    return Start(*start_numbers(state))


def draw_start(task: str, seed: int, world: World) -> Start:
    """A scene in which `task` can be done, by CALVIN's rules; the same task and seed give the same scene."""
    rng = np.random.default_rng([crc32(task.encode()), seed])
    rules = RULES[task]
    rule = rules[rng.integers(len(rules))]
    states = [state for state in start_states() if _fits(state, rule)]
    state = states[rng.integers(len(states))]
    robot, scene = start_numbers(state)
    if world.scene != "D":
        _onto_surfaces(scene, state, world.table.scene.surfaces)
    actions: tuple[Vector, ...] = ()
    for block, place in ((block, rule.needs[block][0]) for block in BLOCKS if block in rule.needs):
        if place == "drawer":
            _put(scene, block, rng.uniform(DRAWER_LOW_M, DRAWER_HIGH_M), rng.uniform(-np.pi, np.pi))
        elif place == "stacked_top":
            below = BLOCK_AT[_bottom(rule)]
            _put(scene, block, scene[below : below + 3] + [0.0, 0.0, BLOCK_HEIGHT_M], scene[below + 5])
        elif place == "grasped":
            _put(scene, block, robot[:3], robot[5])
            actions = (np.append(_STAY, _CLOSED),) * GRASP_STEPS
    return Start(robot, _in_order_of(world, scene), actions)


def _fits(state: State, rule: Rule) -> bool:
    """Whether a start state has all that the rule needs, but for what `draw_start` adds."""
    for key, values in rule.needs.items():
        wanted = tuple("table" if value == "stacked_bottom" else value for value in values)
        if key != "grasped" and values[0] not in _ADDED and state[key] not in wanted:
            return False
        if key in BLOCKS and values[0] in _ADDED and state[key] != "table":
            return False  # taken from the table, so that the shelves stay as the start state has them
    return True


def _bottom(rule: Rule) -> str:
    return next(block for block in BLOCKS if rule.needs.get(block) == ("stacked_bottom",))


def _put(scene: Vector, block: str, position: Vector, yaw_rad: float) -> None:
    begin = BLOCK_AT[block]
    scene[begin : begin + 6] = [*position, 0.0, 0.0, yaw_rad]


def _onto_surfaces(scene: Vector, state: State, surfaces: Mapping[str, object]) -> None:
    """The places on table and shelves of another scene than D, where CALVIN itself scatters the blocks."""
    on_table = [block for block in BLOCKS if state[block] == "table"]
    for block in BLOCKS:
        low, high = np.asarray(surfaces[str(state[block])], np.float64)
        share = (1 + on_table.index(block)) / (1 + len(on_table)) if block in on_table else 0.5
        begin = BLOCK_AT[block]
        scene[begin : begin + 3] = low + (high - low) * [share, 0.5, 0.5]


def _in_order_of(world: World, scene: Vector) -> Vector:
    """The blocks in the order in which this scene's configuration lists them; only D lists red, blue, pink."""
    names = [body.name for body in world.table.scene.movable_objects]
    order = [f"{body.removeprefix('block_')}_block" for body in names]
    blocks = [scene[BLOCK_AT[block] : BLOCK_AT[block] + 6] for block in order]
    return np.concatenate([scene[:6], *blocks])

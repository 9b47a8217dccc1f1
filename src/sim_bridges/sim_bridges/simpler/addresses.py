"""An address `TASK`, `TASK/SET` or `TASK/SET/VARIANT` and a seed in, the published episode that they mean out."""

from __future__ import annotations

from dataclasses import dataclass

from sim_bridges.checks import check_seed, check_task
from sim_bridges.simpler.protocol import MATCHING, TASKS, Start, Task, Variant
from sim_bridges.simpler.robots import Robot
from vla_policy.errors import VlaError, nearest


@dataclass(frozen=True, slots=True)
class Scene:
    """One episode of a set."""

    task: Task
    set: str
    variant: Variant
    start: Start


def find_scene(address: str, seed: int, robot: Robot) -> Scene:
    """The episode number `seed` of an address; after the last one they begin anew. Without a set: visual matching.

    Raises: VlaError for what SIMPLER does not have, naming the nearest, another robot's task, or a negative seed.
    """
    check_seed(seed)
    name, *parts = address.split("/")
    task = find_task(name, robot)
    if len(parts) > 2:
        raise VlaError(f"simpler: got task '{address}', expected TASK, TASK/SET or TASK/SET/VARIANT")
    set_name = parts[0] if parts else MATCHING
    if set_name not in task.sets:
        raise VlaError(f"simpler: got set '{set_name}' of task {name}; {nearest(set_name, task.sets)}")
    variants = {variant.name: variant for variant in task.sets[set_name]}
    if len(parts) == 2:
        if parts[1] not in variants:
            raise VlaError(f"simpler: got variant '{parts[1]}' of {name}/{set_name}; {nearest(parts[1], variants)}")
        variants = {parts[1]: variants[parts[1]]}
    scenes = [(variant, start) for variant in variants.values() for start in variant.starts]
    return Scene(task, set_name, *scenes[seed % len(scenes)])


def find_task(name: str, robot: Robot) -> Task:
    """Raises: VlaError for an unknown task, naming the nearest, or for that of another robot."""
    if name in TASKS and TASKS[name].robot is not robot:
        other = TASKS[name].robot.name
        raise VlaError(f"simpler: got task '{name}' with the contract of robot {robot.name}, expected that of {other}; "
                       f"use config/robots/simpler_{other}.yaml")
    check_task("simpler", name, tasks_of(robot))
    return TASKS[name]


def tasks_of(robot: Robot) -> tuple[str, ...]:
    """Names of a robot's tasks."""
    return tuple(name for name, task in TASKS.items() if task.robot is robot)

"""Task and seed in, SIMPLER's scene out: SimplerSim implements the `Sim` protocol on SimplerEnv or ManiSkill3's twins.

A task is `TASK`, `TASK/SET` or `TASK/SET/VARIANT`, a seed the number of the episode in it. As published, success is
what the environment says after the last step of the task's limit, whatever was before: a policy must leave things done.
"""

from __future__ import annotations

import numpy as np

from sim_bridges.checks import check_command, check_contract, check_duration
from sim_bridges.sim import Episode
from sim_bridges.simpler.actions import arm_action, gripper_of
from sim_bridges.simpler.addresses import Scene, find_scene, tasks_of
from sim_bridges.simpler.protocol import TWINS
from sim_bridges.simpler.robots import robot_of
from sim_bridges.simpler.world import Opener, World, open_world
from vla_policy.contract import RobotContract
from vla_policy.errors import VlaError
from vla_policy.types import NS_PER_S, Command, Observation


class SimplerSim:
    """The robot of a contract in SIMPLER's scenes. open_world: opens a simulator when its first scene is asked for."""

    def __init__(self, contract: RobotContract, open_world: Opener = open_world) -> None:
        """Raises: ContractError for a contract that SIMPLER cannot serve, with both values."""
        self.robot = robot_of(contract)
        check_contract(contract, self.robot.offer)
        self._open_world = open_world
        self._cameras = tuple(contract.cameras)
        self._worlds: dict[bool, World] = {}  # genuine and twin by whether it is the twin
        self._gripper = gripper_of(self.robot)
        self._time_ns = 0
        self._seed = 0
        self._scene: Scene | None = None
        self._address = ""
        self._steps = 0
        self._stage_ends = 0  # after so many steps another instruction is waited for
        self._succeeded = False

    @classmethod
    def for_contract(cls, contract: RobotContract) -> SimplerSim:
        """SIMPLER behind `contract`. Raises: ContractError."""
        return cls(contract)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the robot's tasks; each also stands for its visual matching."""
        return tasks_of(self.robot)

    @property
    def time_ns(self) -> int:
        """Sim time [ns]."""
        return self._time_ns

    @property
    def period_ns(self) -> int:
        """The robot's control period [ns]."""
        return self.robot.period_ns

    @property
    def scene(self) -> Scene | None:
        """The present scene."""
        return self._scene

    @property
    def world(self) -> World:
        """The simulator of the present scene. Raises: VlaError before the first."""
        if self._scene is None:
            raise VlaError("simpler: got no scene, expected one; call reset(task, seed) first")
        return self._worlds[self._scene.set == TWINS]

    def reset(self, task: str, seed: int) -> Episode:
        """The episode number `seed` of an address.

        Raises: VlaError for an unknown task, set or variant, naming the nearest, or a negative seed; ConfigError for
        what is missing on this machine.
        """
        scene = find_scene(task, seed, self.robot)
        twin = scene.set == TWINS
        if twin not in self._worlds:
            self._worlds[twin] = self._open_world(self.robot, scene.set)
        self._worlds[twin].begin(scene)
        self._scene, self._address, self._seed = scene, task, seed
        self._steps, self._succeeded = 0, False
        return self._begin_stage(scene.task.first_steps or scene.task.steps)

    def next_task(self) -> Episode:
        """Ask for the episode's second instruction; nothing moves. Raises: VlaError where it has none left."""
        steps = 0 if self._scene is None else self._scene.task.steps
        if self._stage_ends >= steps:
            raise VlaError("simpler: got no further instruction, expected a task with one left; call reset(task, seed)")
        self.world.next_instruction()
        return self._begin_stage(steps - self._steps)

    def observe(self, images: bool = True) -> Observation:
        """The present state, stamped with `time_ns`; `images=False` leaves out the costly rendering."""
        world = self.world
        pictures = {name: world.image() for name in self._cameras} if images else {}
        return Observation(self._time_ns, pictures, world.joints, world.tool)

    def advance(self, command: Command | None, duration_ns: int) -> None:
        """Hold `command` (None: stay where you are) and let `duration_ns` pass.

        While an instruction is over and the next was not asked for, the world stands still: commands that were under
        way must not alter its start. Raises: VlaError for a duration that is no positive multiple of the control
        period, or numbers that are not finite.
        """
        world = self.world
        check_duration(duration_ns, self.period_ns, f"SIMPLER's control period ({self.robot.rate_hz} Hz)")
        if command is not None:
            check_command(command, 6)
        for _ in range(duration_ns // self.period_ns):
            self._time_ns += self.period_ns
            if self._steps == self._stage_ends < self._scene.task.steps:
                continue
            arm = np.zeros(6) if command is None else arm_action(command.arm, self.period_ns / NS_PER_S)
            gripper = self._gripper.action(None if command is None else command.gripper)
            world.step(np.append(arm, gripper))
            self._steps += 1
            if self._steps == self._scene.task.steps:
                self._succeeded = world.solved()

    def success(self) -> bool:
        """Whether the environment said success after the task's last step."""
        return self._succeeded

    def close(self) -> None:
        """Free the renderers. The sim cannot be used afterwards."""
        for world in self._worlds.values():
            world.close()
        self._worlds.clear()
        self._scene = None

    def _begin_stage(self, steps: int) -> Episode:
        self._stage_ends = self._steps + steps
        self._gripper.begin()
        more = self._stage_ends < self._scene.task.steps
        return Episode(self._address, self._seed, self.world.instruction, steps * self.period_ns / NS_PER_S, more)

"""Nothing but calvin_genuine.json in, a stand-in for CALVIN's table, oracle and sentences out: the tests' World.

`DoubleTable` has the shapes, types and info keys that record_calvin.py found in the genuine environment;
test_calvin_genuine.py holds both to the same record. Its physics is none: the tool is where it was told to go, and a
closed gripper takes along the block between the fingers. `DoubleOracle` calls any task done once the tool is FAR_M
from where the task began, so that a policy can get through a whole chain.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from sim_bridges.calvin.actions import quaternion_from_euler
from sim_bridges.calvin.conditions import TASKS
from sim_bridges.calvin.sim import CalvinSim
from sim_bridges.calvin.states import ROBOT_START
from sim_bridges.calvin.world import World
from vla_policy.action.rotation_forms import rotation_as
from vla_policy.contract import RobotContract

RECORD = json.loads(Path(__file__).with_name("calvin_genuine.json").read_text())
FAR_M = 0.05
ROBOT_UID, TABLE_UID = 0, 5
OPEN_WIDTH_M = 0.08
REACH_M = 0.02  # how near a block the tool must close to take it


class DoubleCamera:
    """Paints the tool's place, so that images differ as states do."""

    def __init__(self, name: str, table: DoubleTable) -> None:
        self.name = name
        self._table = table
        self._shape = tuple(RECORD["table"]["images"][f"rgb_{name}"]["shape"])

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """An RGB image and a depth image, as the genuine cameras do."""
        image = np.zeros((*self._shape[:2], 4), np.uint8)
        image[..., :3] = (self._table.robot.target_pos * 997 % 1 * 255).astype(np.uint8)
        image[: self._shape[0] // 2, :, 0] = 200
        return image[..., :3], np.ones(self._shape[:2], np.float32)  # not contiguous, like the genuine one


class DoubleTable:
    """PlayTableSimEnv as the bridge sees it."""

    cid = 0

    def __init__(self) -> None:
        self.cameras: list[Any] = [DoubleCamera(name, self) for name in RECORD["table"]["cameras"]]
        bodies = [SimpleNamespace(name=name) for name in RECORD["table"]["movable_objects"]]
        self.scene = SimpleNamespace(movable_objects=bodies, surfaces={})
        self.robot = SimpleNamespace(**RECORD["table"]["robot"])
        self.loads = self.steps = 0
        self.closed = False
        self.actions: list[Any] = []

    def load(self) -> None:
        """Counted, so that tests see each scene begin anew."""
        self.loads += 1
        self.actions.clear()

    def reset(self, robot_obs: np.ndarray = ROBOT_START, scene_obs: np.ndarray | None = None) -> dict[str, Any]:
        """Everything to its place."""
        self.robot.target_pos, self.robot.target_orn = robot_obs[:3].copy(), robot_obs[3:6].copy()
        self.robot.gripper_action = 1
        self._joints = robot_obs[7:14].copy()
        self._numbers = np.zeros(24) if scene_obs is None else scene_obs.copy()
        self._held: int | None = None
        return self._observe()

    def step(self, action: Any) -> tuple[dict[str, Any], int, bool, dict[str, Any]]:
        """Relative (7,), or absolute (position, Euler angles or quaternion, gripper)."""
        self.steps += 1
        self.actions.append(action)
        before = self.robot.target_pos.copy()
        if len(action) == 7:
            self.robot.target_pos = before + np.asarray(action[:3]) * self.robot.max_rel_pos
            self.robot.target_orn = self.robot.target_orn + np.asarray(action[3:6]) * self.robot.max_rel_orn
            gripper = float(action[6])
        else:
            self.robot.target_pos = np.array(action[0], np.float64)
            turn = np.asarray(action[1], np.float64)
            self.robot.target_orn = turn if len(turn) == 3 else rotation_as("euler_xyz", turn)
            gripper = action[2]
        assert gripper in (-1, 1), "the genuine table asserts this"
        self._move_blocks(before, gripper)
        self.robot.gripper_action = gripper
        return self._observe(), 0, False, self.get_info()

    def get_info(self) -> dict[str, Any]:
        """The recorded keys."""
        position, turn = tuple(map(float, self.robot.target_pos)), tuple(map(float, self.robot.target_orn))
        slide, drawer, button, switch, bulb, led = map(float, self._numbers[:6])
        links = RECORD["table"]["info"]["scene_info"]["fixed_objects"]["table"]["links"]
        return {
            "robot_info": {"tcp_pos": position, "tcp_orn": turn, "gripper_opening_width": self._width(),
                           "arm_joint_states": self._joints.tolist(), "gripper_action": self.robot.gripper_action,
                           "uid": ROBOT_UID, "contacts": ()},
            "scene_info": {
                "fixed_objects": {"table": {"uid": TABLE_UID, "links": {name: at for at, name in enumerate(links, -1)},
                                            "contacts": ()}},
                "movable_objects": {body.name: self._block(number)
                                    for number, body in enumerate(self.scene.movable_objects)},
                "doors": {"base__slide": {"current_state": slide}, "base__drawer": {"current_state": drawer}},
                "buttons": {"base__button": {"joint_state": button, "logical_state": int(led)}},
                "switches": {"base__switch": {"joint_state": switch, "logical_state": int(bulb)}},
                "lights": {"lightbulb": {"logical_state": int(bulb)}, "led": {"logical_state": int(led)}}}}

    def close(self) -> None:
        """Remembered."""
        self.closed = True

    def _observe(self) -> dict[str, Any]:
        robot = np.concatenate([self.robot.target_pos, self.robot.target_orn, [self._width()], self._joints,
                                [float(self.robot.gripper_action)]])
        pictures = {f"rgb_{camera.name}": camera.render()[0] for camera in self.cameras}
        return {"rgb_obs": pictures, "depth_obs": {}, "robot_obs": robot, "scene_obs": self._numbers.copy()}

    def _width(self) -> float:
        if self._held is not None:
            return OPEN_WIDTH_M / 2
        return OPEN_WIDTH_M if self.robot.gripper_action == 1 else 0.0

    def _move_blocks(self, before: np.ndarray, gripper: float) -> None:
        blocks = self._numbers[6:].reshape(3, 6)
        if gripper == 1:
            self._held = None
        elif self._held is None:
            near = np.linalg.norm(blocks[:, :3] - before, axis=1)
            self._held = int(near.argmin()) if near.min() < REACH_M else None
        if self._held is not None:
            blocks[self._held, :3] += self.robot.target_pos - before

    def _block(self, number: int) -> dict[str, Any]:
        numbers = self._numbers[6 + 6 * number : 12 + 6 * number]
        still = (0.0, 0.0, 0.0)
        return {"current_pos": tuple(map(float, numbers[:3])),
                "current_orn": tuple(map(float, quaternion_from_euler(numbers[3:]))),
                "current_lin_vel": still, "current_ang_vel": still, "contacts": (), "uid": 2 + number}


class DoubleOracle:
    """Any task is done when the tool is FAR_M from where it was."""

    def get_task_info_for_set(self, start_info: dict[str, Any], end_info: dict[str, Any],
                              task_filter: set[str]) -> set[str]:
        """The filter, or nothing."""
        start, end = (np.array(info["robot_info"]["tcp_pos"]) for info in (start_info, end_info))
        return set(task_filter) if np.linalg.norm(end - start) > FAR_M else set()


def open_double() -> World:
    """A World as `sim_bridges.calvin.world.open_world` gives, without CALVIN."""
    return World(DoubleTable(), DoubleOracle(), {task: [task.replace("_", " ")] for task in TASKS}, "D")


def double_sim(contract: RobotContract) -> CalvinSim:
    """A CalvinSim on the double; a factory as the registry takes it."""
    return CalvinSim(contract, open_double)

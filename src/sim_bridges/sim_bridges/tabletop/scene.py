"""A random generator in, a table laid out and lit at random out, and where everything on it is.

Built from scene.xml. All positions are in base_link (the world frame), metres: x forward from the robot,
y to its left, z up, table top at z = 0.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim_bridges.tabletop.gl import mujoco

BLOCKS: dict[str, tuple[float, float, float]] = {  # hue, saturation, value; jittered by scene
    "red": (0.00, 0.85, 0.86),
    "green": (0.36, 0.75, 0.66),
    "blue": (0.61, 0.85, 0.88),
    "yellow": (0.135, 0.87, 0.95),
}
BLOCK_HALF_M = 0.025
BLOCK_X_M, BLOCK_Y_M = (0.35, 0.55), (-0.23, 0.02)
BLOCK_YAW_RAD = 0.4
DRAWS = 256  # layouts drawn at once; one in thirty fits, one in several hundred with a corridor
BLOCK_GAP_M = 0.09  # between centres: room for an open finger
BUTTON_GAP_M = 0.105
BUTTON_X_M, BUTTON_Y_M = (0.62, 0.68), (-0.12, 0.06)
CABINET_X_M, CABINET_Y_M = (0.43, 0.49), (0.345, 0.365)
DRAWER_TRAVEL_M = 0.12
CORRIDOR_M = (0.075, 0.24)  # half width and length kept free on both sides of a block that will be pushed


@dataclass(frozen=True, slots=True)
class Layout:
    """What a task needs. drawer_m: range of its opening. pushed: block whose corridor stays free."""

    drawer_m: tuple[float, float] = (0.0, 0.008)
    pushed: str | None = None


class Scene:
    """The MuJoCo model and data with names for what is on the table."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("scene.xml")))
        self.data = mujoco.MjData(self.model)
        joints = {self.model.joint(i).name: self.model.joint(i) for i in range(self.model.njnt)}
        self._address = {name: int(joint.qposadr[0]) for name, joint in joints.items()}
        self._bodies = {name: self.model.body(name).id for name in (*BLOCKS, "cabinet", "button")}
        self._geoms = {name: self.model.geom(name).id for name in (*BLOCKS, "handle", "button_cap")}
        self._table = self.model.material("table").id
        self._button_colour = self.model.material("button").rgba.copy()
        self._button = self.model.material("button").id
        self._table_colour = self.model.mat_rgba[self._table].copy()
        self._lamp_direction = self.model.light_dir[0].copy()
        self._headlight = self.model.vis.headlight.ambient.copy()

    def shuffle(self, rng: np.random.Generator, layout: Layout) -> None:
        """Start over with a random table; nothing of the state before survives. The arm stands at zero."""
        mujoco.mj_resetData(self.model, self.data)
        self._place_furniture(rng, layout)
        self._place_blocks(rng, layout)
        self._paint(rng)

    def block_pose(self, colour: str) -> tuple[NDArray[np.float64], float]:
        """Centre (3,) m and yaw in (-pi/4, pi/4] rad of a block, by its square symmetry."""
        body = self._bodies[colour]
        turn = self.data.xmat[body].reshape(3, 3)
        axis = turn[:, int(np.argmax(np.abs(turn[0])))]  # the edge nearest to x, also of a tipped block
        yaw = float(np.arctan2(axis[1], axis[0]))
        return self.data.xpos[body].copy(), (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4

    def positions(self) -> dict[str, NDArray[np.float64]]:
        """Where the things are that words can name: block centres, drawer handle, button top; (3,) m each."""
        places = {f"{colour}_block": self.data.xpos[self._bodies[colour]].copy() for colour in BLOCKS}
        places["drawer"] = self.data.geom_xpos[self._geoms["handle"]].copy()
        cap = self._geoms["button_cap"]
        places["button"] = self.data.geom_xpos[cap] + [0.0, 0.0, self.model.geom_size[cap][1]]
        return places

    @property
    def drawer_opening_m(self) -> float:
        """0 shut .. DRAWER_TRAVEL_M open."""
        return float(self.data.qpos[self._address["drawer"]])

    @property
    def button_depth_m(self) -> float:
        """How far the button is pressed in."""
        return float(self.data.qpos[self._address["button"]])

    def put_block(self, colour: str, position: NDArray[np.float64], yaw: float) -> None:
        """Teleport a block, upright. position: (3,) m."""
        start = self._address[colour]
        self.data.qpos[start:start + 3] = position
        self.data.qpos[start + 3:start + 7] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

    def light_button(self) -> None:
        """Let the button glow while it is pressed, as its lamp would."""
        glow = min(1.0, max(0.0, self.button_depth_m / 0.010))
        self.model.mat_emission[self._button] = 0.6 * glow

    def _place_furniture(self, rng: np.random.Generator, layout: Layout) -> None:
        position = self.model.body_pos
        position[self._bodies["cabinet"]][:2] = rng.uniform(*CABINET_X_M), rng.uniform(*CABINET_Y_M)
        position[self._bodies["button"]][:2] = rng.uniform(*BUTTON_X_M), rng.uniform(*BUTTON_Y_M)
        self.data.qpos[self._address["drawer"]] = rng.uniform(*layout.drawer_m)

    def _place_blocks(self, rng: np.random.Generator, layout: Layout) -> None:
        low, high = np.array([BLOCK_X_M, BLOCK_Y_M]).T
        fits = np.zeros(DRAWS, bool)
        while not fits.any():
            spots = rng.uniform(low, high, (DRAWS, len(BLOCKS), 2))
            fits = self._fits(spots, layout)
        for colour, spot in zip(BLOCKS, spots[np.argmax(fits)], strict=True):
            yaw = rng.uniform(-BLOCK_YAW_RAD, BLOCK_YAW_RAD)
            self.put_block(colour, np.array([*spot, BLOCK_HALF_M]), yaw)

    def _fits(self, spots: NDArray[np.float64], layout: Layout) -> NDArray[np.bool_]:
        """Which of many drawn layouts (N, blocks, 2) m leave the gaps and the corridor free: (N,)."""
        button = self.model.body_pos[self._bodies["button"]][:2]
        first, second = np.triu_indices(len(BLOCKS), 1)
        apart = np.linalg.norm(spots[:, first] - spots[:, second], axis=-1).min(axis=1) > BLOCK_GAP_M
        apart &= np.linalg.norm(spots - button, axis=-1).min(axis=1) > BUTTON_GAP_M
        if layout.pushed is None:
            return apart
        pushed = list(BLOCKS).index(layout.pushed)
        away = np.abs(np.delete(spots, pushed, axis=1) - spots[:, pushed:pushed + 1])
        blocked = (away[..., 0] < CORRIDOR_M[0]) & (away[..., 1] < CORRIDOR_M[1])
        return apart & ~blocked.any(axis=1)

    def _paint(self, rng: np.random.Generator) -> None:
        for colour, (hue, saturation, value) in BLOCKS.items():
            turn, tint, shade = rng.uniform(-1.0, 1.0, 3) * [0.015, 0.10, 0.08]
            hsv = (hue + turn) % 1.0, min(1.0, saturation + tint), min(1.0, value + shade)
            self.model.geom_rgba[self._geoms[colour]][:3] = colorsys.hsv_to_rgb(*hsv)
        tint = rng.uniform(0.82, 1.08) * (1.0 + rng.uniform(-0.06, 0.06, 3))
        self.model.mat_rgba[self._table][:3] = np.clip(self._table_colour[:3] * tint, 0.0, 1.0)
        direction = self._lamp_direction + np.array([*rng.uniform(-0.35, 0.35, 2), 0.0])
        self.model.light_dir[0] = direction / np.linalg.norm(direction)
        self.model.light_diffuse[0] = rng.uniform(0.40, 0.65)
        self.model.vis.headlight.ambient[:] = self._headlight * rng.uniform(0.85, 1.15)
        self.model.mat_emission[self._button] = 0.0

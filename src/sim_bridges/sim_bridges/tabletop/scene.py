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
from vla_policy.errors import VlaError

BLOCKS: dict[str, tuple[float, float, float]] = {  # hue, saturation, value; jittered by scene
    "red": (0.00, 0.85, 0.86),
    "green": (0.36, 0.75, 0.66),
    "blue": (0.61, 0.85, 0.88),
    "yellow": (0.135, 0.87, 0.95),
}
PADS = ("white", "black")
BLOCK_HALF_M = 0.025
BLOCK_X_M, BLOCK_Y_M = (0.38, 0.56), (-0.24, -0.01)
BLOCK_YAW_RAD = 0.4
DRAWS = 256  # layouts drawn at once; one in thirty fits, one in several hundred with a corridor
PATIENCE = 40  # times so many are drawn before one corridor less must do
BLOCK_GAP_M = 0.09  # between centres: room for an open finger
BUTTON_GAP_M = 0.105
BUTTON_X_M, BUTTON_Y_M = (0.62, 0.68), (-0.12, 0.06)
CABINET_X_M, CABINET_Y_M = (0.43, 0.49), (0.368, 0.382)
CABINET_FRONT_M = 0.080  # of the roof's edge before the cabinet's middle, along -y
DRAWER_FRONT_M = 0.074  # inner side of the shut drawer's front before the cabinet's middle, along -y
DRAWER_INSIDE_M = (0.080, 0.066, 0.075)  # half length along x, half length along y, height under which things are in
DRAWER_TRAVEL_M = 0.12
PAD_X_M, PAD_Y_M = (0.285, 0.305), {"white": (-0.215, -0.185), "black": (0.005, 0.035)}
PAD_HALF_M = 0.045
LAMP_X_M, LAMP_Y_M = (0.66, 0.70), (0.19, 0.23)
LAMP_FRONT_M = np.array([-0.095, -0.050, 0.0])  # free table before the lamp's foot
LIT, UNLIT = np.array([1.0, 0.93, 0.45]), np.array([0.20, 0.22, 0.26])
CLICK_M, RELEASE_M = 0.010, 0.004  # the button switches when it sinks past the first, anew after rising to the second
PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
CORRIDOR_M = (0.075, 0.24)  # half width and length kept free on both sides of a block that will be pushed


@dataclass(frozen=True, slots=True)
class Layout:
    """What a task needs. drawer_m: range of its opening.

    pushed: blocks whose corridors stay free, or those of the first ones where there is no room for all.
    light: whether the lamp shines; None leaves it to chance.
    """

    drawer_m: tuple[float, float] = (0.0, 0.008)
    pushed: tuple[str, ...] = ()
    light: bool | None = None


class Scene:
    """The MuJoCo model and data with names for what is on the table."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("scene.xml")))
        self.data = mujoco.MjData(self.model)
        joints = {self.model.joint(i).name: self.model.joint(i) for i in range(self.model.njnt)}
        self._address = {name: int(joint.qposadr[0]) for name, joint in joints.items()}
        pads = tuple(f"{name}_pad" for name in PADS)
        self._bodies = {name: self.model.body(name).id
                        for name in (*BLOCKS, *pads, "cabinet", "drawer", "button", "lamp")}
        self._geoms = {name: self.model.geom(name).id for name in (*BLOCKS, "handle", "button_cap", "bulb")}
        self._fingers = {self.model.geom(name).id for name in ("left_pad", "right_pad")}
        self._table, self._button, self._bulb = (self.model.material(name).id for name in ("table", "button", "bulb"))
        self._table_colour = self.model.mat_rgba[self._table].copy()
        self._sun_direction = self.model.light_dir[0].copy()
        self._headlight = self.model.vis.headlight.ambient.copy()
        self.light_on = False
        self.button_armed = True  # whether the next push switches the light

    def shuffle(self, rng: np.random.Generator, layout: Layout) -> None:
        """Start over with a random table; nothing of the state before survives. The arm stands at zero."""
        mujoco.mj_resetData(self.model, self.data)
        self._place_furniture(rng, layout)
        self._place_blocks(rng, layout)
        self._paint(rng)
        by_chance = bool(rng.random() < 0.5)
        self.light_on = by_chance if layout.light is None else layout.light
        self.button_armed = True

    def rearrange(self, rng: np.random.Generator) -> None:
        """Bring some blocks where tasks bring them: onto a pad, onto another block, into the open drawer."""
        mujoco.mj_kinematics(self.model, self.data)
        places = self.positions()
        first, second, third = (str(colour) for colour in rng.permutation(list(BLOCKS))[:3])
        spots = []
        if rng.random() < 0.4:
            spots.append((first, places[f"{rng.choice(PADS)}_pad"] + [0.0, 0.0, BLOCK_HALF_M]))
        if rng.random() < 0.25:
            spots.append((second, places[f"{third}_block"] + [0.0, 0.0, 2 * BLOCK_HALF_M]))
        elif rng.random() < 0.4 and self.drawer_opening_m > 0.08:
            spots.append((second, places["drawer_inside"] + [0.0, 0.0, BLOCK_HALF_M]))
        for colour, spot in spots:
            aside = [*rng.uniform(-0.01, 0.01, 2), 0.0]
            self.put_block(colour, spot + aside, rng.uniform(-BLOCK_YAW_RAD, BLOCK_YAW_RAD))

    def block_pose(self, colour: str) -> tuple[NDArray[np.float64], float]:
        """Centre (3,) m and yaw in (-pi/4, pi/4] rad of a block, by its square symmetry."""
        body = self._bodies[colour]
        turn = self.data.xmat[body].reshape(3, 3)
        axis = turn[:, int(np.argmax(np.abs(turn[0])))]  # the edge nearest to x, also of a tipped block
        yaw = float(np.arctan2(axis[1], axis[0]))
        return self.data.xpos[body].copy(), (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4

    def positions(self) -> dict[str, NDArray[np.float64]]:
        """Where the things are that words can name, (3,) m each: block centres, drawer handle, the middle of the
        drawer's open part at its floor, button top, pads, bulb, the table before the lamp.
        """
        xpos, geom_xpos = self.data.xpos, self.data.geom_xpos
        places = {f"{colour}_block": xpos[self._bodies[colour]].copy() for colour in BLOCKS}
        places |= {f"{name}_pad": xpos[self._bodies[f"{name}_pad"]].copy() for name in PADS}
        places["drawer"] = geom_xpos[self._geoms["handle"]].copy()
        middle_m = -(CABINET_FRONT_M + DRAWER_FRONT_M + self.drawer_opening_m) / 2
        places["drawer_inside"] = xpos[self._bodies["cabinet"]] + [0.0, middle_m, 0.022]
        cap = self._geoms["button_cap"]
        places["button"] = geom_xpos[cap] + [0.0, 0.0, self.model.geom_size[cap][1]]
        places["light"] = geom_xpos[self._geoms["bulb"]].copy()
        places["lamp_front"] = xpos[self._bodies["lamp"]] + LAMP_FRONT_M
        return places

    @property
    def drawer_opening_m(self) -> float:
        """0 shut .. DRAWER_TRAVEL_M open."""
        return float(self.data.qpos[self._address["drawer"]])

    @property
    def button_depth_m(self) -> float:
        """How far the button is pressed in."""
        return float(self.data.qpos[self._address["button"]])

    def in_drawer(self, colour: str) -> bool:
        """Whether a block lies within the drawer's walls."""
        away = self.data.xpos[self._bodies[colour]] - self.data.xpos[self._bodies["drawer"]]
        half_x, half_y, height = DRAWER_INSIDE_M
        return bool(abs(away[0]) < half_x and abs(away[1]) < half_y + 0.01 and away[2] < height)

    def touched(self, colour: str) -> bool:
        """Whether a finger touches a block."""
        block = self._geoms[colour]
        return any((pair[0] == block and pair[1] in self._fingers) or (pair[1] == block and pair[0] in self._fingers)
                   for pair in self.data.contact.geom)

    def state(self) -> NDArray[np.float64]:
        """All that moves, (S,): MuJoCo's time, positions, velocities; whether the lamp shines, the button is armed."""
        moving = np.zeros(mujoco.mj_stateSize(self.model, PHYSICS))
        mujoco.mj_getState(self.model, self.data, moving, PHYSICS)
        return np.append(moving, [self.light_on, self.button_armed])

    def restore(self, state: NDArray[np.float64]) -> None:
        """Take on a `state` of the same scene. Raises: VlaError for one of another size, or not finite."""
        size = mujoco.mj_stateSize(self.model, PHYSICS) + 2
        if state.shape != (size,) or not np.isfinite(state).all():
            raise VlaError(f"tabletop: got a state of shape {state.shape}, expected ({size},) finite numbers; it is "
                           "not of this simulator")
        mujoco.mj_setState(self.model, self.data, state[:-2], PHYSICS)
        self.light_on, self.button_armed = bool(state[-2]), bool(state[-1])
        mujoco.mj_forward(self.model, self.data)

    def put_block(self, colour: str, position: NDArray[np.float64], yaw: float) -> None:
        """Teleport a block, upright. position: (3,) m."""
        start = self._address[colour]
        self.data.qpos[start:start + 3] = position
        self.data.qpos[start + 3:start + 7] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

    def switch_light(self) -> None:
        """Let the button act, once every time it is pushed down; called once a control period."""
        depth_m = self.button_depth_m
        if self.button_armed and depth_m > CLICK_M:
            self.light_on, self.button_armed = not self.light_on, False
        elif depth_m < RELEASE_M:
            self.button_armed = True

    def shine(self) -> None:
        """Show in the picture whether the lamp is on and how far the button is pressed."""
        self.model.mat_rgba[self._bulb][:3] = LIT if self.light_on else UNLIT
        self.model.mat_emission[self._bulb] = 0.9 if self.light_on else 0.0
        self.model.mat_emission[self._button] = 0.6 * min(1.0, max(0.0, self.button_depth_m / CLICK_M))

    def _place_furniture(self, rng: np.random.Generator, layout: Layout) -> None:
        position = self.model.body_pos
        position[self._bodies["cabinet"]][:2] = rng.uniform(*CABINET_X_M), rng.uniform(*CABINET_Y_M)
        position[self._bodies["button"]][:2] = rng.uniform(*BUTTON_X_M), rng.uniform(*BUTTON_Y_M)
        position[self._bodies["lamp"]][:2] = rng.uniform(*LAMP_X_M), rng.uniform(*LAMP_Y_M)
        for name in PADS:
            position[self._bodies[f"{name}_pad"]][:2] = rng.uniform(*PAD_X_M), rng.uniform(*PAD_Y_M[name])
        self.data.qpos[self._address["drawer"]] = rng.uniform(*layout.drawer_m)

    def _place_blocks(self, rng: np.random.Generator, layout: Layout) -> None:
        low, high = np.array([BLOCK_X_M, BLOCK_Y_M]).T
        fits, rounds, pushed = np.zeros(DRAWS, bool), 0, layout.pushed
        while not fits.any():
            spots = rng.uniform(low, high, (DRAWS, len(BLOCKS), 2))
            fits = self._fits(spots, pushed)
            rounds += 1
            if rounds % PATIENCE == 0:
                pushed = pushed[:-1]  # so many corridors do not fit on the table
        for colour, spot in zip(BLOCKS, spots[np.argmax(fits)], strict=True):
            yaw = rng.uniform(-BLOCK_YAW_RAD, BLOCK_YAW_RAD)
            self.put_block(colour, np.array([*spot, BLOCK_HALF_M]), yaw)

    def _fits(self, spots: NDArray[np.float64], pushed: tuple[str, ...]) -> NDArray[np.bool_]:
        """Which of many drawn layouts (N, blocks, 2) m leave the gaps and the corridors free: (N,)."""
        button = self.model.body_pos[self._bodies["button"]][:2]
        first, second = np.triu_indices(len(BLOCKS), 1)
        apart = np.linalg.norm(spots[:, first] - spots[:, second], axis=-1).min(axis=1) > BLOCK_GAP_M
        apart &= np.linalg.norm(spots - button, axis=-1).min(axis=1) > BUTTON_GAP_M
        for colour in pushed:
            index = list(BLOCKS).index(colour)
            away = np.abs(np.delete(spots, index, axis=1) - spots[:, index:index + 1])
            blocked = (away[..., 0] < CORRIDOR_M[0]) & (away[..., 1] < CORRIDOR_M[1])
            apart &= ~blocked.any(axis=1)
        return apart

    def _paint(self, rng: np.random.Generator) -> None:
        for colour, (hue, saturation, value) in BLOCKS.items():
            turn, tint, shade = rng.uniform(-1.0, 1.0, 3) * [0.015, 0.10, 0.08]
            hsv = (hue + turn) % 1.0, min(1.0, saturation + tint), min(1.0, value + shade)
            self.model.geom_rgba[self._geoms[colour]][:3] = colorsys.hsv_to_rgb(*hsv)
        tint = rng.uniform(0.82, 1.08) * (1.0 + rng.uniform(-0.06, 0.06, 3))
        self.model.mat_rgba[self._table][:3] = np.clip(self._table_colour[:3] * tint, 0.0, 1.0)
        direction = self._sun_direction + np.array([*rng.uniform(-0.35, 0.35, 2), 0.0])
        self.model.light_dir[0] = direction / np.linalg.norm(direction)
        self.model.light_diffuse[0] = rng.uniform(0.40, 0.65)
        self.model.vis.headlight.ambient[:] = self._headlight * rng.uniform(0.85, 1.15)

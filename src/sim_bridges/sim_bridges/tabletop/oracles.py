"""A goal and a scene in, whether the goal's condition holds out; none of them asks how it came about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim_bridges.tabletop.scene import BLOCK_HALF_M, CLICK_M, PAD_HALF_M, Scene
from sim_bridges.tabletop.tasks import Family, Goal

LIFT_HEIGHT_M = 0.06  # of the block's underside above the table
PUSH_DISTANCE_M = 0.08
PUSH_MAX_DRIFT_M = 0.08  # along x, either way
STACK_OFFSET_M = 0.020  # sideways, between the centres of two stacked blocks
DRAWER_OPEN_M = 0.10
DRAWER_SHUT_M = 0.015
LAMP_NEAR_M = 0.15  # sideways, between the centres of a block and of the lamp: three blocks' widths
FLAT_M = 0.010  # how far a block may be from the height at which it lies
TABLE_X_M = (0.15, 0.84)
TABLE_Y_M = (-0.56, 0.56)

Oracle = Callable[[Goal, Scene, NDArray[np.float64]], bool]


def reached(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    """Whether the goal's condition holds. start: (3,) m, base_link, where the target was when it was asked for."""
    return bool(_ORACLES[goal.family](goal, scene, start))


def _lifted(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    """In the air and in the hand: a block on another one is not lifted."""
    return scene.positions()[goal.target][2] > BLOCK_HALF_M + LIFT_HEIGHT_M and scene.touched(goal.colour)


def _pushed(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    now = scene.positions()[goal.target]
    moved = now - start
    on_table = TABLE_X_M[0] < now[0] < TABLE_X_M[1] and TABLE_Y_M[0] < now[1] < TABLE_Y_M[1]
    straight = abs(moved[0]) < PUSH_MAX_DRIFT_M
    return goal.direction * moved[1] > PUSH_DISTANCE_M and straight and on_table and _flat(now)


def _on_pad(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    """Its centre over the pad, flat, let go."""
    places = scene.positions()
    away = np.abs(places[goal.target] - places[goal.destination])[:2]
    return bool((away < PAD_HALF_M).all()) and _flat(places[goal.target]) and not scene.touched(goal.colour)


def _stacked(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    """Standing on the other block, which lies on the table, and let go."""
    places = scene.positions()
    way = places[goal.target] - places[goal.destination]
    upon = abs(way[2] - 2 * BLOCK_HALF_M) < FLAT_M and np.linalg.norm(way[:2]) < STACK_OFFSET_M
    return bool(upon) and _flat(places[goal.destination]) and not scene.touched(goal.colour)


def _stored(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    return scene.in_drawer(goal.colour) and not scene.touched(goal.colour)


def _drawer_moved(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    opening_m = scene.drawer_opening_m
    return opening_m > DRAWER_OPEN_M if goal.direction > 0 else opening_m < DRAWER_SHUT_M


def _pressed(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    return scene.button_depth_m > CLICK_M


def _light_switched(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    return scene.light_on == (goal.direction > 0)


def _brought(goal: Goal, scene: Scene, start: NDArray[np.float64]) -> bool:
    """Lying on the table near the lamp, let go."""
    places = scene.positions()
    near = np.linalg.norm((places[goal.target] - places["light"])[:2]) < LAMP_NEAR_M
    return bool(near) and _flat(places[goal.target]) and not scene.touched(goal.colour)


def _flat(position: NDArray[np.float64]) -> bool:
    """Whether a block at this place lies on the table."""
    return bool(abs(position[2] - BLOCK_HALF_M) < FLAT_M)


_ORACLES: dict[Family, Oracle] = {
    Family.LIFT: _lifted,
    Family.PUSH: _pushed,
    Family.SLIDE: _on_pad,
    Family.STACK: _stacked,
    Family.STORE: _stored,
    Family.DRAWER: _drawer_moved,
    Family.PRESS: _pressed,
    Family.LIGHT: _light_switched,
    Family.BRING: _brought,
}

"""A symbolic start state in, CALVIN's 15 robot and 24 scene numbers out: where everything stands at the start.

robot_obs: tool x y z [m], tool Euler angles x y z [rad], gripper width [m], seven joints [rad], gripper action.
scene_obs: slider, drawer, button, switch [m or rad], light bulb, LED, then red, blue, pink block: x y z, Euler.
Both in CALVIN's world frame, for its scene D.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim_bridges.calvin.conditions import BLOCKS

Vector = NDArray[np.float64]

ROBOT_START = np.array([0.02586889, -0.2313129, 0.5712808, 3.09045411, -0.02908596, 1.50013585, 0.07999963,
                        -1.21779124, 1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928, 1.0])
SHELVES_M = {"slider_left": np.array([-2.40851662e-01, 9.24044687e-02, 4.60990009e-01]),
             "slider_right": np.array([7.03416330e-02, 9.24044687e-02, 4.60990009e-01])}
TABLE_M = (np.array([5.00000896e-02, -1.20000177e-01, 4.59990009e-01]),
           np.array([2.29995412e-01, -1.19995140e-01, 4.59990010e-01]))
YAW_RAD = (np.pi / 2 - np.pi / 8, np.pi / 2 + np.pi / 8)
SLIDER_LEFT_M, DRAWER_OPEN_M, SWITCH_ON_RAD = 0.28, 0.22, 0.088
BLOCK_AT = {block: 6 + 6 * number for number, block in enumerate(BLOCKS)}  # where its six numbers begin

_FNV_PRIME = 0x01000193


def fnv0_32(text: str) -> int:
    """The 32-bit hash that CALVIN seeds a start state with: FNV-0 over UTF-16LE.

    pyhash's `fnv1_32` as CALVIN calls it: the offset basis is 0, and the text is that of a wide string. FNV-1 over
    UTF-8 would place the blocks differently in 107 of the 192 start states.
    Fowler, Noll, Vo: http://www.isthe.com/chongo/tech/comp/fnv/
    """
    value = 0
    for byte in text.encode("utf-16-le"):
        value = value * _FNV_PRIME & 0xFFFFFFFF ^ byte
    return value


def start_numbers(state: Mapping[str, int | str]) -> tuple[Vector, Vector]:
    """robot_obs (15,) and scene_obs (24,) of a start state, bit for bit CALVIN's own."""
    random = np.random.RandomState(fnv0_32(str(dict(state).values())))
    table = [place.copy() for place in TABLE_M]
    random.shuffle(table)
    scene = np.zeros(24)
    scene[0] = SLIDER_LEFT_M if state["slider"] == "left" else 0.0
    scene[1] = DRAWER_OPEN_M if state["drawer"] == "open" else 0.0
    scene[3] = SWITCH_ON_RAD if state["lightbulb"] == 1 else 0.0
    scene[4], scene[5] = state["lightbulb"], state["led"]
    for block, begin in BLOCK_AT.items():
        scene[begin : begin + 3] = _place(block, state, table)
        scene[begin + 5] = random.uniform(*YAW_RAD)
    return ROBOT_START.copy(), scene


def _place(block: str, state: Mapping[str, int | str], table: list[Vector]) -> Vector:
    if state[block] != "table":
        return SHELVES_M[str(state[block])]
    # Red takes the first place on the table, pink the second, blue the one that red leaves.
    second = block == "pink_block" or (block == "blue_block" and state["red_block"] == "table")
    return table[int(second)]

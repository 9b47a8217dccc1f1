"""A hand, a goal and where its block was at first in, the next action row out: the tasks that are about a block."""

from __future__ import annotations

import numpy as np

from sim_bridges.tabletop.arm import FINGER_OPEN_M
from sim_bridges.tabletop.motion import CLEAR_M, CLOSED, GAIN, LYING_M, OPEN, Hand, Vector
from sim_bridges.tabletop.oracles import PUSH_DISTANCE_M
from sim_bridges.tabletop.scene import BLOCK_HALF_M, BLOCKS, DRAWER_INSIDE_M
from sim_bridges.tabletop.tasks import Goal

LIFT_TO_M = 0.14
FINGER_HALF_M = 0.0125  # half the closed fingers' width along y
PUSH_BACKOFF_M = 0.030  # gap between finger and block before a push
PUSH_STEP_M = 0.011
PUSH_HEIGHT_M = 0.022  # of the tool: a little below the middle of a block
DRAG_HEIGHT_M = BLOCK_HALF_M - 0.001
OVER_M = 0.11  # tool height at which a block passes over others that lie on the table
OVER_DRAWER_M, DROP_M = 0.165, 0.128  # tool heights on the way to the drawer, and where the fingers open
LANE_M = 0.070  # a block further from the way than this is not in it


def lift(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Grip the block and raise it."""
    return _grip(hand, goal) if not hand.holds(goal.colour) else hand.rise(LIFT_TO_M, CLOSED)


def push(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Go behind the block with closed fingers and push it along y."""
    free = hand.release()
    if free is not None:
        return free
    arm, side = hand.arm, goal.direction
    block, _ = hand.scene.block_pose(goal.colour)
    moved_m = side * (block[1] - start[1])
    behind_m = side * (block[1] - arm.position[1]) - BLOCK_HALF_M - FINGER_HALF_M
    aside_m = arm.position[0] - block[0]
    # Well past the goal: who watches cannot tell a finished push from one not begun: the sim must see it first.
    if moved_m > PUSH_DISTANCE_M + 0.07:
        return hand.rise(0.10, CLOSED)
    low = arm.position[2] < PUSH_HEIGHT_M + 0.015
    if low and abs(aside_m) < 0.030 and -0.015 < behind_m < PUSH_BACKOFF_M + 0.025:
        centred = float(np.clip((0.022 - abs(aside_m)) / 0.012, 0.0, 1.0))  # if not, first aim again
        step = np.array([-aside_m, centred * side * PUSH_STEP_M / GAIN, PUSH_HEIGHT_M - arm.position[2]])
        return hand.row(step, 0.0, CLOSED)
    gap_m = BLOCK_HALF_M + FINGER_HALF_M + PUSH_BACKOFF_M
    return hand.approach(np.array([block[0], block[1] - side * gap_m, PUSH_HEIGHT_M]), 0.0, CLOSED)


def slide(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Grip the block, drag it over the table, or over what lies in its way, to the pad; let go and rise."""
    pad = hand.scene.positions()[goal.destination]
    block, _ = hand.scene.block_pose(goal.colour)
    there = np.linalg.norm((block - pad)[:2]) < 0.012 and hand.arm.position[2] < LYING_M
    if there or (_let_go(hand, block) and np.linalg.norm((block - pad)[:2]) < 0.028):
        return _leave(hand, block)
    if not hand.holds(goal.colour):
        return _grip(hand, goal)
    high = block[2] > 0.045
    way_is_free = not any(_in_the_way(hand, other, block, pad) for other in BLOCKS if other != goal.colour)
    travel_m = DRAG_HEIGHT_M if way_is_free and not high else max(OVER_M, hand.highest_m() + 2 * CLEAR_M)
    return hand.carry(goal.colour, np.array([pad[0], pad[1], DRAG_HEIGHT_M]), travel_m)


def stack(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Grip the block, set it on the other one, let go and rise."""
    below, _ = hand.scene.block_pose(goal.other)
    block, _ = hand.scene.block_pose(goal.colour)
    place = below + [0.0, 0.0, 2 * BLOCK_HALF_M]
    aside_m = float(np.linalg.norm((block - place)[:2]))
    seated = abs(block[2] - place[2]) < 0.006 and aside_m < 0.018 and _let_go(hand, block)
    if seated or (aside_m < 0.008 and abs(hand.arm.position[2] - place[2]) < 0.005):
        return _leave(hand, block)
    if not hand.holds(goal.colour):
        return _grip(hand, goal)
    return hand.carry(goal.colour, place, max(OVER_M, place[2] + 0.04))


def store(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Grip the block, carry it over the open drawer, let it fall and rise."""
    inside = hand.scene.positions()["drawer_inside"]
    block, _ = hand.scene.block_pose(goal.colour)
    away = block - inside
    above = abs(away[0]) < DRAWER_INSIDE_M[0] and abs(away[1]) < 0.05
    if above and not hand.holds(goal.colour):
        return hand.rise(OVER_DRAWER_M, OPEN)
    if not hand.holds(goal.colour):
        return _grip(hand, goal)
    if np.linalg.norm(away[:2]) < 0.014 and hand.arm.position[2] < DROP_M + 0.008:
        return hand.stay(OPEN)
    return hand.carry(goal.colour, np.array([inside[0], inside[1], DROP_M]), OVER_DRAWER_M)


def bring(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Grip the block, carry it over whatever lies between to its place, let go and rise."""
    spot = hand.scene.positions()[goal.destination]
    block, _ = hand.scene.block_pose(goal.colour)
    aside_m = float(np.linalg.norm((block - spot)[:2]))
    if aside_m < 0.028 and (hand.arm.position[2] < LYING_M or _let_go(hand, block)):
        return _leave(hand, block)
    if not hand.holds(goal.colour):
        return _grip(hand, goal)
    return hand.carry(goal.colour, np.array([*spot[:2], DRAG_HEIGHT_M]), max(OVER_M, hand.highest_m() + 2 * CLEAR_M))


def _grip(hand: Hand, goal: Goal) -> Vector:
    """Come down on the block with open fingers and close them."""
    free = hand.release(goal.target)
    if free is not None:
        return free
    block, yaw = hand.scene.block_pose(goal.colour)
    offset = hand.arm.position - block
    near = bool(np.linalg.norm(offset[:2]) < 0.018 and abs(offset[2]) < 0.018)
    turn = hand.yaw_error(yaw)
    closing = near and hand.arm.finger_m < FINGER_OPEN_M - 0.003
    if closing or (np.linalg.norm(offset[:2]) < 0.008 and abs(offset[2]) < 0.008 and abs(turn) < 0.12):
        return hand.row(-offset, turn, CLOSED)
    return hand.approach(block, yaw, OPEN)


def _let_go(hand: Hand, block: Vector) -> bool:
    """Whether the fingers are clearly wider than the block, or elsewhere."""
    return hand.arm.finger_m > BLOCK_HALF_M + 0.004 or bool(np.linalg.norm(hand.arm.position - block) > 0.04)


def _leave(hand: Hand, block: Vector) -> Vector:
    """Open the fingers where they are, then rise clear of the block."""
    if not _let_go(hand, block):
        return hand.stay(OPEN)
    return hand.rise(block[2] + 0.09, OPEN)


def _in_the_way(hand: Hand, colour: str, block: Vector, goal: Vector) -> bool:
    """Whether another block is nearer than a lane's half width to the straight way."""
    other = hand.scene.block_pose(colour)[0]
    along = (goal - block)[:2]
    length_m = float(np.linalg.norm(along))
    direction = along / max(length_m, 1e-6)
    share_m = float(np.clip((other - block)[:2] @ direction, 0.0, length_m))
    return bool(np.linalg.norm((other - block)[:2] - share_m * direction) < LANE_M)

"""A hand and a goal in, the next action row out: the drawer, the button and the light it switches."""

from __future__ import annotations

import numpy as np

from sim_bridges.tabletop.arm import FINGER_OPEN_M
from sim_bridges.tabletop.block_experts import FINGER_HALF_M, PUSH_BACKOFF_M, PUSH_STEP_M
from sim_bridges.tabletop.motion import CLOSED, GAIN, OPEN, Hand, Vector
from sim_bridges.tabletop.scene import DRAWER_TRAVEL_M
from sim_bridges.tabletop.tasks import Goal

PULL_STEP_M = 0.014
HANDLE_HALF_M = 0.008


def drawer(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Pull it open or push it shut."""
    if goal.direction > 0:
        free = hand.release("drawer")
        return _open(hand) if free is None else free
    free = hand.release()
    return _close(hand) if free is None else free


def _open(hand: Hand) -> Vector:
    arm, handle = hand.arm, hand.scene.positions()["drawer"]
    offset = arm.position - handle
    if hand.scene.drawer_opening_m > DRAWER_TRAVEL_M - 0.006:
        return hand.stay(CLOSED)
    near = bool(np.linalg.norm(offset[:2]) < 0.03 and abs(offset[2]) < 0.016)
    if near and arm.finger_m < 0.014:
        return hand.row(np.array([-offset[0], -PULL_STEP_M / GAIN, -offset[2]]), 0.0, CLOSED)
    closing = near and arm.finger_m < FINGER_OPEN_M - 0.003
    if closing or (np.linalg.norm(offset[:2]) < 0.010 and abs(offset[2]) < 0.010):
        return hand.row(-offset, 0.0, CLOSED)
    return hand.approach(handle, 0.0, OPEN)


def _close(hand: Hand) -> Vector:
    arm, handle = hand.arm, hand.scene.positions()["drawer"]
    before_m = handle[1] - arm.position[1] - FINGER_HALF_M - HANDLE_HALF_M
    aside_m = arm.position[0] - handle[0]
    if hand.scene.drawer_opening_m < 0.006:
        return hand.stay(CLOSED)
    low = arm.position[2] < handle[2] + 0.012
    if low and abs(aside_m) < 0.03 and -0.012 < before_m < PUSH_BACKOFF_M + 0.02:
        step = np.array([-aside_m, PUSH_STEP_M / GAIN, handle[2] - arm.position[2]])
        return hand.row(step, 0.0, CLOSED)
    return hand.approach(handle - [0.0, PUSH_BACKOFF_M + FINGER_HALF_M + HANDLE_HALF_M, 0.0], 0.0, CLOSED)


def press(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Push the button down and hold it there."""
    free = hand.release()
    if free is not None:
        return free
    top = hand.scene.positions()["button"]
    down_m = 0.0 if hand.scene.button_depth_m > 0.013 else 0.02
    return hand.approach(top - [0.0, 0.0, down_m], 0.0, CLOSED)


def light(hand: Hand, goal: Goal, start: Vector) -> Vector:
    """Press where the light is not as asked, rising first where the button is still down; stay once it is."""
    if hand.scene.light_on == (goal.direction > 0):
        return hand.stay(CLOSED)
    if not hand.scene.button_armed:
        free = hand.release()
        return hand.rise(0.13, CLOSED) if free is None else free
    return press(hand, goal, start)

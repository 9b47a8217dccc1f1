"""Rows of actions made of the commands that a robot was sent, and back by the guard's own conversion."""

from __future__ import annotations

import numpy as np
import pytest
from make_bags import ROOT

from vla_policy.action.limits import arm_limiter
from vla_policy.action.recorded_rows import action_rows, covered
from vla_policy.contract import RobotContract, load_contract
from vla_policy.types import NS_PER_S, Command

TABLETOP = load_contract(ROOT / "config/robots/tabletop.yaml")  # ee_delta, 20 Hz
START_NS = 10 * NS_PER_S
DT_NS = TABLETOP.action_dt_ns


def commands_at(stamps_ns: list[int], arms: np.ndarray, grippers: list[float | None]) -> list[Command]:
    return [Command(stamp, arm, gripper) for stamp, arm, gripper in zip(stamps_ns, arms, grippers, strict=True)]


@pytest.mark.parametrize("robot", ["tabletop", "ur5e", "franka", "so101"])
def test_a_row_asks_for_the_command_it_was_made_of(robot: str) -> None:
    contract = load_contract(ROOT / f"config/robots/{robot}.yaml")
    ticks_ns = START_NS + np.arange(6) * contract.action_dt_ns
    arms = asked_arms(contract, len(ticks_ns))
    gripper = contract.action.gripper
    sent = commands_at(list(ticks_ns), arms, [0.1 * i if gripper else None for i in range(6)])
    rows = action_rows(ticks_ns, sent, one_rate(contract))
    assert rows.shape == (6, len(contract.action_names))
    limiter = arm_limiter(contract)
    for row, arm in zip(rows[:, :-1] if gripper else rows, arms, strict=True):
        np.testing.assert_allclose(limiter.request(row), arm, atol=1e-9)
    if gripper:
        np.testing.assert_allclose(rows[:, -1], 0.1 * np.arange(6))


def one_rate(contract: RobotContract) -> RobotContract:
    """With one command a row."""
    return contract.model_copy(update={"control_rate_hz": contract.action.rate_hz})


def asked_arms(contract: RobotContract, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    size = len(contract.command_names) - bool(contract.action.gripper)
    arms = rng.normal(size=(count, size))
    if contract.action.kind == "ee_pose":
        arms[:, 3:] /= np.linalg.norm(arms[:, 3:], axis=1, keepdims=True) * np.sign(arms[:, 6:])
    return arms


def test_twists_between_the_frames_are_summed_up() -> None:
    """Commands at 100 Hz, 3 ms beside the grid: a row is what the tool moved in its 50 ms."""
    contract = TABLETOP.model_copy(update={"control_rate_hz": 100.0})
    stamps_ns = START_NS + 3_000_000 + np.arange(40) * contract.control_dt_ns
    arms = np.random.default_rng(1).normal(size=(40, 6))
    ticks_ns = START_NS + DT_NS * np.arange(1, 6)
    rows = action_rows(ticks_ns, commands_at(list(stamps_ns), arms, [1.0] * 40), contract)
    fine_ns = np.arange(0, DT_NS, 1_000_000)  # the sum over each millisecond, command by command
    for row, tick_ns in zip(rows, ticks_ns, strict=True):
        current = np.searchsorted(stamps_ns, tick_ns + fine_ns, side="right") - 1
        np.testing.assert_allclose(row[:6], arms[current].sum(0) * 1e-3, atol=1e-12)


def test_a_robot_that_nobody_commands_rests() -> None:
    sent = commands_at([START_NS, START_NS + 10 * DT_NS], np.ones((2, 6)), [None, 0.0])
    rows = action_rows(START_NS + DT_NS * np.arange(11), sent, TABLETOP)
    np.testing.assert_allclose(rows[:, 0], [0.05] * 2 + [0.0] * 8 + [0.05], atol=1e-12)


def test_the_gripper_stays_where_a_command_leaves_it() -> None:
    stamps = [START_NS + i * DT_NS for i in range(5)]
    sent = commands_at(stamps, np.zeros((5, 6)), [None, 0.7, None, 0.2, None])
    assert action_rows(np.array(stamps), sent, TABLETOP)[:, 6].tolist() == [0.7, 0.7, 0.7, 0.2, 0.2]
    with pytest.raises(ValueError, match="no command moves the gripper"):
        action_rows(np.array(stamps), commands_at(stamps, np.zeros((5, 6)), [None] * 5), TABLETOP)


def test_frames_before_the_first_and_after_the_last_command_are_left_out() -> None:
    ticks_ns = [START_NS + i * DT_NS for i in range(10)]
    sent = commands_at([ticks_ns[3] + 1000, ticks_ns[6]], np.zeros((2, 6)), [1.0, 1.0])
    assert covered(ticks_ns, sent, TABLETOP) == slice(3, 7)
    assert covered(ticks_ns, [], TABLETOP) == slice(0, 0)

"""Recorded actions come out as rows to be sent again, slower where asked, from where the arm stood; else a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_bags import Message, Motion, record_episode, tabletop, twist

from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError, DataError
from vla_policy.replay import EXECUTE_ROWS, REACH_ROWS, Replay, check_fits, load_actions
from vla_policy.resources import find_contract

CONTRACT = tabletop(8)
MOTION = Motion(seconds=1.0)
DT_S = 0.05
DT_NS = 50_000_000


def idle(sent: list[Message], first: int, last: int) -> list[Message]:
    """The guard holds in the first and the last commands."""
    commands = [msg for _, topic, msg in sent if topic == "/vla/command"]
    for msg in [*commands[:first], *commands[len(commands) - last:]]:
        msg.run_id = 0
    return sent


def test_rows_are_what_was_sent_while_somebody_drove(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, MOTION, lambda sent: idle(sent, 4, 3))
    recorded = load_actions(tmp_path / "one")
    assert recorded.rows.shape == (13, 7)
    np.testing.assert_allclose(recorded.rows[:, :6], [twist(i * DT_S) * DT_S for i in range(4, 17)], rtol=1e-6)
    assert recorded.rows[:, 6].tolist() == [1.0] * 6 + [0.0] * 7
    assert recorded.joints.tolist() == (np.arange(8) + 4).tolist()  # of the last state before


def test_half_the_speed_goes_the_same_way_in_twice_the_time(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, MOTION)
    fast, slow = load_actions(tmp_path / "one"), load_actions(tmp_path / "one", speed=0.5)
    assert len(slow.rows) == 2 * len(fast.rows)
    np.testing.assert_allclose(slow.rows[:, :6].reshape(-1, 2, 6).sum(1), fast.rows[:, :6], atol=1e-9)
    assert np.array_equal(slow.rows[::2, 6], fast.rows[:, 6])
    for speed in (0.0, 1.5, -1.0):
        with pytest.raises(ConfigError, match="a replay is never faster than the recording"):
            load_actions(tmp_path / "one", speed)


def test_an_episode_in_which_nobody_drove_is_refused(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, MOTION, lambda sent: idle(sent, 99, 0))
    with pytest.raises(DataError, match="one.mcap: nobody drove in the episode"):
        load_actions(tmp_path / "one")
    (tmp_path / "one/episode.json").unlink()
    with pytest.raises(DataError, match="got no episode.json"):
        load_actions(tmp_path / "one")


def test_another_robot_or_another_place_is_refused_joint_by_joint(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, MOTION)
    recorded = load_actions(tmp_path / "one")
    check_fits(recorded, CONTRACT, recorded.joints + 0.01, 0.05)
    off = recorded.joints.copy()
    off[[1, 7]] += [0.2, -0.06]
    with pytest.raises(DataError, match=r"joint2 1\.200, recorded 1\.000; finger_joint 6\.940, recorded 7\.000; bring"):
        check_fits(recorded, CONTRACT, off, 0.05)
    with pytest.raises(DataError, match="recorded with another contract: name: tabletop here, ur5e there"):
        check_fits(recorded, load_contract(find_contract("ur5e")), off, 0.05)
    tuned = CONTRACT.model_copy(update={"limits": CONTRACT.limits.model_copy(update={"linear_velocity_m_s": 0.1})})
    check_fits(recorded, tuned, recorded.joints, 0.05)  # the guard's own business


def test_chunks_lie_on_an_even_grid_and_end_in_rest(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, MOTION)
    recorded = load_actions(tmp_path / "one")
    replay = Replay(recorded, run_id=9, slack_ns=DT_NS // 2)
    start_ns, chunks = 1_000_000_000, []
    for tick in range(recorded.rows.shape[0] + 1):
        jitter_ns = (0, -3_000_000, 4_000_000)[tick % 3]
        assert not replay.is_over(start_ns + tick * DT_NS + jitter_ns) or tick == len(recorded.rows)
        chunks += replay.poll(start_ns + tick * DT_NS + (jitter_ns if tick else 0))
    assert [chunk.stamp_ns for chunk in chunks] == [start_ns + i * DT_NS for i in range(0, 20, EXECUTE_ROWS)]
    assert {chunk.run_id for chunk in chunks} == {9} and replay.sent_rows == replay.total_rows == 20
    executed = np.concatenate([chunk.values[:chunk.execute_rows] for chunk in chunks])
    np.testing.assert_array_equal(executed, recorded.rows)
    last = chunks[-1].values
    assert len(last) == REACH_ROWS and not last[EXECUTE_ROWS:, :6].any() and (last[:, 6] == recorded.rows[-1, 6]).all()
    late = Replay(recorded, 9, 0)
    late.poll(start_ns)
    assert len(late.poll(start_ns + 7 * DT_NS)) == 3  # what was missed is caught up on; the guard takes the newest

"""Names of episodes, the newest one, those that were interrupted, and who has a folder in hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from make_bags import record_episode, tabletop

from vla_policy.errors import DataError
from vla_policy.recorder.dataset_folder import interrupted_episodes, is_locked, lock, newest_episode, next_name
from vla_policy.recording import EPISODE_FILE

CONTRACT = tabletop(8)


def test_numbers_go_on_above_the_highest(tmp_path: Path) -> None:
    assert next_name(tmp_path / "not yet") == "episode_0000"
    for name in ("episode_0003", "episode_12000", "lunch", ".recovering"):
        (tmp_path / name).mkdir()
    (tmp_path / "episode_99999").write_text("no folder")
    assert next_name(tmp_path) == "episode_12001"


def test_the_newest_episode_is_the_one_written_last(tmp_path: Path) -> None:
    assert newest_episode(tmp_path) is None
    for name, outcome in (("b", "success"), ("a", "failure")):
        record_episode(tmp_path / name, CONTRACT, outcome=outcome)
    os.utime(tmp_path / "b" / EPISODE_FILE, ns=(1, 1))
    newest, record = newest_episode(tmp_path)
    assert (newest.name, record.outcome) == ("a", "failure")


def test_interrupted_ones_are_those_without_an_end(tmp_path: Path) -> None:
    record_episode(tmp_path / "whole", CONTRACT)
    torn = record_episode(tmp_path / "torn", CONTRACT).parent
    (torn / EPISODE_FILE).unlink()
    (tmp_path / "notes").mkdir()
    assert interrupted_episodes(tmp_path) == [torn]
    claim = lock(torn)
    assert interrupted_episodes(tmp_path) == []  # somebody has it in hand
    os.close(claim)


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from vla_policy.recorder.dataset_folder import lock"
    code += "; lock(Path(sys.argv[1])); print('mine', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(DataError, match="is being recorded or recovered by another process"):
            lock(tmp_path)
        other.kill()
    assert not is_locked(tmp_path)

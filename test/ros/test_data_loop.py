"""The whole data loop, small: real Joy messages, recorded in realtime, converted, fine-tuned, driven by its nodes.

How good the policy gets is not asked of so few steps: that is measured, see docs/results.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from guard_rig import relaxed_contract
from processes import Spawn

from vla_policy.checkpoint import load_bundle
from vla_policy.policy import Policy
from vla_policy.recording import read_episode
from vla_training.datasets.recorded import open_recorded

EPISODES, LOOP_S = 2, 600.0  # about half a minute on a quiet machine


@pytest.mark.timeout(LOOP_S + 60)
def test_from_a_gamepad_to_a_policy_that_knows_the_new_words(spawn: Spawn, tmp_path: Path) -> None:
    output = tmp_path / "loop"
    robot = relaxed_contract("tabletop", tmp_path)  # a loaded machine is no fault of the operator
    process = spawn([sys.executable, "-m", "sim_bridges.data_loop", "--output", output, "--robot", robot, "--episodes",
                     str(EPISODES), "--per-task", "2", "--old-per-task", "0", "--rehearse", "0", "--steps", "4"])
    assert process.wait(LOOP_S) == 0, process.output
    steps = {step["name"]: step for step in json.loads((output / "loop.json").read_text())}
    assert list(steps) == ["the task before", "recording", "conversion", "fine-tuning", "the task after"]
    assert steps["the task before"]["facts"]["successes"] == 0
    assert steps["recording"]["facts"]["episodes"] == EPISODES == steps["conversion"]["facts"]["episodes"]
    assert all(step["seconds"] > 0 for step in steps.values())

    records = [read_episode(folder) for folder in sorted((output / "recorded").glob("episode_*"))]
    kept = [record for record in records if record.outcome == "success"]
    assert len(kept) == EPISODES and {record.task for record in kept} == {"bring_to_lamp"}
    assert {record.driver for record in kept} == {"operator"} and {record.operator for record in kept} == {"script"}
    columns = open_recorded(output / "recorded", ("success",)).columns(0)
    assert columns["intervention"].mean() > 0.5 and len(columns["action"]) > 20
    assert columns["action"][:, 6].max() > 0.9 and columns["action"][:, 6].min() < 0.1  # the gripper's button acted

    bundle = load_bundle(output / "finetuned/bundle")
    assert set(bundle.instructions) == {"bring_to_lamp"}
    policy = Policy(bundle, "cpu")
    for record in kept:
        policy.reset(record.instruction)
    assert "| recording |" in (output / "loop.md").read_text()


def test_a_loop_that_cannot_begin_says_why(spawn: Spawn, tmp_path: Path) -> None:
    process = spawn([sys.executable, "-m", "sim_bridges.data_loop", "--output", tmp_path])
    assert process.wait() == 1 and "already there; expected a new folder" in process.output

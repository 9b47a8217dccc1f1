"""A policy node in each execution mode: it drives, or refuses by name what its head cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import write_bundle
from guard_rig import guard_command
from policies import SENTENCES
from policy_rig import PolicyRig, patient_contract, policy_command
from processes import Spawn

from vla_policy.execution import Execution
from vla_policy.resources import find_policy

FLOW = {"action_head": "flow", "head_options": {"width": 16, "layers": 1, "heads": 2, "denoiser_size": 32}}


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    return patient_contract("tabletop", tmp_path)


@pytest.fixture
def rig(contract: Path) -> Iterator[PolicyRig]:
    rig = PolicyRig(contract)
    yield rig
    rig.close()


@pytest.mark.parametrize("execution", Execution)
def test_it_drives(spawn: Spawn, rig: PolicyRig, contract: Path, tmp_path: Path, execution: Execution) -> None:
    bundle = write_bundle(tmp_path / "bundle", contract, SENTENCES, **FLOW)
    spawn(guard_command(contract, f"execution:={execution}"))
    spawn(policy_command(contract, bundle, f"execution:={execution}"))
    rig.until_idle()
    goal = rig.send(SENTENCES[0])
    rig.until(lambda: any(feedback.inferences >= 3 for feedback in goal.feedback), "three inferences")
    goal.handle.cancel_goal_async()
    goal.result()


def test_a_head_that_cannot_go_on_is_refused_when_configured(spawn: Spawn, contract: Path) -> None:
    node = spawn(policy_command(contract, find_policy("tabletop"), "execution:=rtc"))
    node.wait_for("execution: got rtc, but action head 'lstm' gives its chunks in one piece.*flow or diffusion")
    assert node.wait() == 1


def test_a_mode_that_is_none_is_refused(spawn: Spawn, contract: Path) -> None:
    node = spawn(policy_command(contract, find_policy("tabletop"), "execution:=asnyc"))
    node.wait_for("execution: got 'asnyc'; did you mean 'async'")
    assert node.wait() == 1

"""A policy node whose engine cannot do what it was asked for: said by name, the robot held, and taken up again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import write_bundle
from guard_rig import guard_command
from policy_rig import PolicyRig, patient_contract, policy_command
from processes import Spawn

from vla_policy.run import EndReason

OPEN = "open the drawer"
NODE = Path(__file__).with_name("exhausted_policy.py")


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    return patient_contract("tabletop", tmp_path)


@pytest.fixture
def bundle(tmp_path: Path, contract: Path) -> Path:
    return write_bundle(tmp_path / "bundle", contract, (OPEN,))


@pytest.fixture
def exhausted(tmp_path: Path) -> Path:
    """The file that stands for a device without memory."""
    return tmp_path / "exhausted"


@pytest.fixture
def rig(contract: Path) -> Iterator[PolicyRig]:
    rig = PolicyRig(contract)
    yield rig
    rig.close()


def command(contract: Path, bundle: Path, exhausted: Path, *parameters: str) -> list[str]:
    """That of a policy node whose memory can be exhausted."""
    return [sys.executable, str(NODE), str(exhausted), *policy_command(contract, bundle, *parameters)[3:]]


def test_memory_that_runs_out_in_a_run_ends_it_and_the_next_run_goes_on(
    spawn: Spawn, rig: PolicyRig, contract: Path, bundle: Path, exhausted: Path
) -> None:
    spawn(guard_command(contract))
    node = spawn(command(contract, bundle, exhausted, "engine:=graph"))
    node.wait_for("engine graph: frame runs eager: CUDA graphs need a GPU, the model is on cpu")
    node.wait_for("engine on cpu in float32, frame eager, window eager")
    rig.until_idle()
    goal = rig.send(OPEN)
    goal.running()
    exhausted.touch()
    result = goal.result()
    assert EndReason(result.reason) is EndReason.POLICY_ERROR
    assert "EngineError: cpu: got out of memory at a step" in result.message
    assert "lower history_length" in result.message
    rig.assert_still()
    exhausted.unlink()
    rig.reset()
    rig.send(OPEN).running()


def test_memory_that_does_not_last_the_warm_up_refuses_the_node(
    spawn: Spawn, contract: Path, bundle: Path, exhausted: Path
) -> None:
    exhausted.touch()
    node = spawn(command(contract, bundle, exhausted))
    node.wait_for("got out of memory at a step.*use dtype bfloat16 or int8")
    assert node.wait() == 1


@pytest.mark.parametrize(("parameter", "words"), [
    ("engine:=graf", "engine: got 'graf'; did you mean 'graph'"),
    ("resize:=gpu", "resize: got 'gpu'; known: host, device"),
    ("dtype:=fp8", "dtype fp8: got device cpu"),
])
def test_what_the_engine_cannot_is_refused_in_one_line(
    spawn: Spawn, contract: Path, bundle: Path, parameter: str, words: str
) -> None:
    node = spawn(policy_command(contract, bundle, "device:=cpu", parameter))
    node.wait_for(words)
    assert node.wait() == 1

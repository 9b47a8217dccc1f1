"""A policy node whose policy runs elsewhere: it drives, stops when the server is gone, and goes on when it is back."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_rig import guard_command
from policy_rig import PolicyRig, patient_contract, policy_command
from processes import Spawn, Spawned

from vla_policy.run import EndReason

PORT = 18763
SENTENCE = "open the drawer"


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    return patient_contract("tabletop", tmp_path)


@pytest.fixture
def rig(contract: Path) -> Iterator[PolicyRig]:
    rig = PolicyRig(contract)
    yield rig
    rig.close()


def serve(spawn: Spawn, port: int) -> Spawned:
    program = [sys.executable, "-m", "vla_policy.remote.serve"]
    server = spawn([*program, "tabletop", "--device", "cpu", "--port", str(port)])
    server.wait_for("serving on")
    return server


def test_a_server_drives_is_missed_and_is_taken_back(
    spawn: Spawn, rig: PolicyRig, contract: Path
) -> None:
    server = serve(spawn, PORT)
    address = f"ws://127.0.0.1:{PORT}"
    spawn(guard_command(contract))
    spawn(policy_command(contract, address))
    rig.until_idle()
    goal = rig.send(SENTENCE)
    goal.running()
    server.signal(signal.SIGKILL)
    result = goal.result()
    assert EndReason(result.reason) is EndReason.POLICY_ERROR
    assert f"{address}: it went away" in result.message
    rig.assert_still()
    serve(spawn, PORT)
    rig.reset()
    rig.send(SENTENCE).running()


def test_a_server_that_is_not_there_is_refused_in_one_line(spawn: Spawn, contract: Path) -> None:
    node = spawn(policy_command(contract, "ws://127.0.0.1:9"))
    node.wait_for("ws://127.0.0.1:9: no policy server answered")
    assert node.wait() == 1

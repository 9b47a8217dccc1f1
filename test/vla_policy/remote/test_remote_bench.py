"""The bench of the policy server: one client and two, plain and batched, beside the policy in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import write_bundle
from policies import SENTENCES

from vla_policy.errors import RemoteError
from vla_policy.remote.bench import main, served


def test_every_row_is_measured(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "tabletop", SENTENCES)
    arguments = ["--policy", str(bundle), "--clients", "1", "2", "--steps", "3", "--instruction", SENTENCES[0],
                 "--device", "cpu", "--json", str(tmp_path / "rows.json")]
    assert main(arguments) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["where"], row["clients"]) for row in rows] == [
        ("in process", 1), ("server", 1), ("server", 2), ("server, batched", 1), ("server, batched", 2)]
    assert all(0 < row["step_ms"][0] <= row["step_ms"][1] and row["steps_per_s"] > 0 for row in rows)
    assert all(row["added_ms"][0] > 0 for row in rows[1:])


def test_a_server_that_does_not_come_up_is_told(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="did not come up.*no such folder|did not come up.*no such file"), served(
            str(tmp_path / "none")):
        pass

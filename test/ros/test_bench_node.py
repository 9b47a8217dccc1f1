"""The bench of the nodes: real processes in a domain of their own, figures for every stage and process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from processes import Spawn

from vla_policy_node.bench_node import STAGES

BENCH = [sys.executable, "-m", "vla_policy_node.bench_node"]


def test_it_measures_stages_and_cpu(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    size = ["--width", "160", "--height", "120", "--rate", "15"]
    bench = spawn([*BENCH, "--seconds", "2", *size, "--device", "cpu", "--json", path])
    assert bench.wait(150.0) == 0, bench.output
    found = json.loads(path.read_text())
    assert found["inferences"] >= 1
    latencies = found["latency_ms"]
    assert set(latencies) == {*STAGES, "overhead"}
    assert 0 < latencies["overhead"]["p50"] < latencies["total"]["p50"]
    for state in ("idle", "running"):
        assert set(found["cpu_percent_of_a_core"][state]) == {"sensors", "policy_node", "guard_node"}
    assert found["cpu_percent_of_a_core"]["running"]["policy_node"] > 0


def test_sizes_that_make_no_sense_are_refused(spawn: Spawn) -> None:
    bench = spawn([*BENCH, "--width", "0"])
    assert bench.wait() == 2
    assert "expected all above 0" in bench.output

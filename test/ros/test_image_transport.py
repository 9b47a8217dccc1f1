"""Camera frames of one process under config/fastdds.xml in; all of them in another process out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROFILE = Path(__file__).resolve().parents[2] / "config" / "fastdds.xml"
FRAMES, RATE_HZ = 60, 15.0  # slower than a camera: the machine may be loaded


def check_transport(spawn: Callable[..., Any], out: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output and result of a transport check under the shipped profile."""
    process = spawn([sys.executable, "-m", "vla_policy_node.transport_check", "--json", out, *arguments],
                    env={"FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE)})
    code = process.wait(timeout_s=120)
    return code, process.output, json.loads(out.read_text()) if out.exists() else {}


def test_frames_larger_than_the_default_segment_all_arrive(spawn: Callable[..., Any], tmp_path: Path) -> None:
    code, output, result = check_transport(spawn, tmp_path / "result.json", "--rate", str(RATE_HZ),
                                           "--seconds", str(FRAMES / RATE_HZ), "--width", "640", "--height",
                                           "480")
    assert (code, result.get("sent"), result.get("received")) == (0, FRAMES, FRAMES), output
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"], result
    assert "XMLPARSER" not in output, output


def test_a_wrong_rate_is_refused(spawn: Callable[..., Any], tmp_path: Path) -> None:
    code, output, _ = check_transport(spawn, tmp_path / "result.json", "--rate", "-1")
    assert code == 2 and "got 10.0 s, -1.0 Hz, 640x480; expected all above 0" in output

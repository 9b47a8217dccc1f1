"""The bench on a twin in; out: figures, ratios, one exit code, and every mistake in a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vla_policy.bench import command, loops, sections
from vla_policy.bench.cases import Case, Settings, build, make_engine
from vla_policy.bench.command import main
from vla_policy.bench.floor import step_cost
from vla_policy.bench.report import read_json
from vla_policy.model.registry import BACKBONES

TWIN = ["--backbone", "kosmos", "--size", "twin", "--window", "2", "--device", "cpu", "--seconds", "0.01"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a loaded machine threads of the plain loops wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_loops_and_scaling_of_a_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, png = tmp_path / "new" / "bench.json", tmp_path / "bench.png"
    pytest.importorskip("matplotlib")
    arguments = [*TWIN, "--modes", "eager", "graph", "--sections", "loops", "scaling", "--quick"]
    assert main([*arguments, "--json", str(path), "--plot", str(png)]) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith("times faster than the loop that recomputes the window")
    assert "CUDA graphs need a GPU" in shown and png.stat().st_size > 10_000
    report = read_json(path)
    rows = report["sections"]["loops"]["rows"]
    assert rows["eager"]["max_action_error"] <= 1e-3 and rows["graph"]["ratio_to_window_loop"] > 0
    assert rows["eager"]["p50_ms"] <= rows["eager"]["p95_ms"] <= rows["eager"]["p99_ms"]
    assert set(report["sections"]["scaling"]["rows"]) == {"window", "batch"}
    assert report["machine"]["cores"] and report["provenance"]["command"].startswith("bench --backbone kosmos")


def test_stages_and_floor_of_a_twin(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert main([*TWIN, "--sections", "stages", "floor", "--json", str(path)]) == 0
    found = read_json(path)["sections"]
    assert {"upload", "vision", "language", "head", "resize (host)", "decode (actions)"} <= set(found["stages"]["rows"])
    assert found["floor"]["times_floor"] > 1 and found["floor"]["weight_bytes"] > 0


def test_rounded_weights_are_fewer_bytes_and_the_same_products() -> None:
    costs = {}
    for dtype in ("float32", "int8"):
        settings = Settings(Case("kosmos", "twin", window=2), dtype=dtype)
        costs[dtype] = step_cost(make_engine(build(settings.case, "cpu", dtype), settings, "eager"), settings)
    assert costs["int8"][0] < 0.6 * costs["float32"][0] and costs["int8"][1] == costs["float32"][1] > 1e6


def test_actions_that_differ_fail_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(loops.TOLERANCE, "float32", -1.0)
    assert main([*TWIN, "--sections", "loops"]) == 1
    assert "ACTIONS DIFFER" in capsys.readouterr().out


def test_a_section_that_fails_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> dict[str, object]:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(loops, "run", broken)
    path = tmp_path / "bench.json"
    assert main([*TWIN, "--sections", "loops", "floor", "--json", str(path)]) == 1
    found = json.loads(path.read_text())["sections"]
    assert found["loops"] == {"failed": "RuntimeError: no such thing"} and "floor_ms" in found["floor"]


def test_sections_of_other_packages_are_found_or_said_to_be_missing(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sections, "entry_points", lambda group: [
        type("Point", (), {"name": "ros", "value": "no_such_package.bench:run"})])
    assert main([*TWIN, "--sections", "ros"]) == 0
    assert "== ros" in (shown := capsys.readouterr().out) and "not measured: No module named" in shown


def test_two_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("old", 10.0), ("new", 5.0)):
        report = {"sections": {"loops": {"rows": {"eager": {"p50_ms": value, "runs": 3}}}}, "machine": {"load": value}}
        command.write_json(tmp_path / f"{name}.json", report)
    assert main(["--compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1].split() == ["loops/rows/eager/p50_ms", "10", "5", "0.500"] and len(lines) == 2


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--backbone", "kosmoss"], "did you mean 'kosmos'"),
    (["--backbone", "smolvlm", "--size", "500"], "did you mean '500m'"),
    (["--device", "warp"], "device: got 'warp'"),
    (["--compare", "/nowhere.json", "/nowhere.json"], "give a file that `bench --json` wrote"),
    ([*TWIN, "--sections", "loops", "--json", "/proc/no/file.json"], "choose another place"),
])
def test_mistakes_are_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert expected in error and error.startswith("bench: ") and error.count("\n") == 1


def test_every_backbone_has_a_case() -> None:
    for backbone in BACKBONES:
        assert Case(backbone, "twin").config("float32").image_size in (32, 224)

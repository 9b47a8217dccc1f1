"""Parts that work, fail or come too late in; out: a table that names them all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vla_policy.bench import suite
from vla_policy.bench.report import read_json
from vla_policy.bench.suite import Outcome, Part, main, parts, table, unmet
from vla_policy.model.published import model_sizes
from vla_policy.model.registry import BACKBONES, resolve

PARTS = (Part("kosmos, eager", ("--backbone", "kosmos", "--sections", "loops"), 120, {"p50_ms": 1e9}),
         Part("a wrong one", ("--backbone", "kosmoss"), 120), Part("a slow one", ("--backbone", "kosmos"), 0.1))


def test_a_part_that_fails_or_hangs_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(suite, "parts", lambda: iter(PARTS))
    assert main([str(tmp_path), "--dry-run", "--minutes", "5"]) == 1
    shown = (tmp_path / "table.md").read_text()
    assert shown in capsys.readouterr().out
    assert "| kosmos, eager | eager |" in shown and "| held |" in shown
    assert "**a wrong one**: ended with 1: bench: model.backbone: got 'kosmoss'" in shown
    assert "**a slow one**: not done within 0 s" in shown
    assert read_json(tmp_path / "suite.json")["sections"]["kosmos, eager"]["rows"]["eager"]["p50_ms"] > 0


def test_what_has_no_time_left_is_not_begun(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--dry-run", "--minutes", "0"]) == 1
    assert (tmp_path / "table.md").read_text().count("not begun: the time was up") == len(list(parts()))


def test_a_machine_without_a_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([str(tmp_path)]) == 1
    assert "torch sees no NVIDIA GPU here" in capsys.readouterr().err


def test_aims_that_are_not_held_are_said() -> None:
    aims = {"p50_ms": 10.0, "ratio_to_window_loop": 15.0, "times_floor": 3.0}
    assert unmet({"p50_ms": 9.0, "ratio_to_window_loop": 20.0, "times_floor": 2.0}, aims) == []
    assert unmet({"p50_ms": 11.0, "ratio_to_window_loop": 2.0, "times_floor": None}, aims) == [
        "p50_ms 11.0, aim <= 10", "ratio_to_window_loop 2.0, aim >= 15", "times_floor not measured, aim <= 3"]
    assert "out of memory" in table([Outcome(PARTS[0], 1.0, None, "out of memory")], {"cpu": "any"})


def test_the_sizes_to_measure_are_the_published_ones() -> None:
    sizes = {"smolvlm": ("500m", 0.51), "kosmos": ("published", 1.66), "qwen-vl": ("published", 3.75),
             "paligemma": ("published", 2.92)}
    assert {backbone: size for backbone, (size, _) in suite.MODELS.items()} == {
        backbone: size for backbone, (size, _) in sizes.items()}
    for backbone, (size, billions) in sizes.items():
        kind = resolve(BACKBONES, backbone, "backbone")
        architecture = model_sizes(backbone, size)["backbone_options"]["architecture"]
        with torch.device("meta"):
            model = kind.hf_class._from_config(kind.hf_class.config_class.from_dict(architecture))
        assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.02)

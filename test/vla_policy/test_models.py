"""The models command in; out: its table is that of the refusals, its counts are the published sizes."""

from __future__ import annotations

import sys

import pytest
from rich.console import Console

from vla_policy import models
from vla_policy.model import combinations
from vla_policy.model.registry import FORMULATIONS, HEADS


def test_the_table_in_the_manual_is_what_the_configuration_does() -> None:
    lines = combinations.__doc__.splitlines()
    top = next(line for line in lines if "one_step" in line)
    rows = {name: line for line in lines for name in line[:17].replace(",", " ").split() if name in HEADS}
    assert set(rows) == set(HEADS)
    for formulation, head, refusal in models.cells("kosmos"):
        start = top.index(f" {formulation}") + 1
        mark = rows[head][start: start + len(formulation)].strip()
        assert (mark == "x") == (refusal == ""), (formulation, head, refusal)


def test_sizes_are_those_that_were_published() -> None:
    assert models.short(models.published_parameters("kosmos")) == "1.66 B"
    assert models.published_parameters("tiny") < 1_000_000


def test_a_backbone_is_shown_with_the_reasons(monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["models", "--backbone", "tiny"])
    monkeypatch.setattr(models, "Console", lambda: Console(width=400))
    models.main()
    shown = capsys.readouterr().out
    assert "looks at them from beside its sequence" in shown
    assert all(name in shown for name in (*FORMULATIONS, *HEADS))


def test_an_unknown_backbone_is_one_sentence(monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["models", "--backbone", "kosmo"])
    with pytest.raises(SystemExit) as ended:
        models.main()
    assert ended.value.code == 1
    assert "did you mean 'kosmos'?" in capsys.readouterr().out

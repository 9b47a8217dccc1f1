"""How well a simulator ranks policies: the two measures, the tables they are made from, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_bridges.agreement import compare, main, mean_maximum_rank_violation, pearson_correlation, read_real
from vla_policy.errors import DataError

RATES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6)


def test_measures_of_a_small_example() -> None:
    """a, b, c are 0.9, 0.5, 0.1 in reality; the simulator takes b for the best: a and b are the wrong way round."""
    assert mean_maximum_rank_violation([0.4, 0.6, 0.0], [0.9, 0.5, 0.1]) == pytest.approx((0.4 + 0.4 + 0.0) / 3)
    assert pearson_correlation([0.0, 0.5, 1.0], [0.2, 0.4, 0.6]) == pytest.approx(1.0)
    assert pearson_correlation([1.0, 0.5, 0.0], [0.2, 0.4, 0.6]) == pytest.approx(-1.0)
    assert pearson_correlation([0.3, 0.3], [0.2, 0.4]) is None


@given(RATES)
def test_the_same_order_violates_nothing_and_any_other_at_most_the_range(pairs: list[tuple[float, float]]) -> None:
    sim, real = zip(*pairs, strict=True)
    assert mean_maximum_rank_violation(real, real) == 0.0
    assert 0.0 <= mean_maximum_rank_violation(sim, real) <= max(real) - min(real) + 1e-12


def test_tasks_are_compared_by_the_policies_that_both_have() -> None:
    simulated = {"open": {"a": 0.1, "b": 0.2, "c": 0.3}, "close": {"a": 0.5, "b": 0.4}, "lift": {"a": 1.0}}
    real = {"open": {"a": 0.1, "b": 0.3, "d": 0.9}, "close": {"a": 0.7, "b": 0.6}, "lift": {"a": 0.9, "b": 0.8}}
    first, second, average = compare(simulated, real)
    assert (first.task, first.policies, first.mmrv) == ("open", ("a", "b"), 0.0)
    assert second.task == "close" and second.pearson == pytest.approx(1.0)
    assert average.task == "average" and average.real == pytest.approx((0.4, 0.45))
    with pytest.raises(DataError, match="expected a task with two policies in common"):
        compare({"open": {"a": 0.1}}, real)


def test_real_rates_are_read_from_yaml_and_csv(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text("open: {rt-1: 0.5, octo: 0}\n")
    (tmp_path / "real.csv").write_text("task,policy,success_rate\nopen,rt-1,0.5\nopen,octo,0\n")
    expected = {"open": {"rt-1": 0.5, "octo": 0.0}}
    assert read_real(tmp_path / "real.yaml") == read_real(tmp_path / "real.csv") == expected


@pytest.mark.parametrize(("name", "text", "words"), [
    ("real.csv", "task,policy\nopen,a\n", "got columns task, policy, expected task, policy, success_rate"),
    ("real.csv", "task,policy,success_rate\nopen,a,50\n", "line 2: got success rate '50', expected a share"),
    ("real.csv", "task,policy,success_rate\nopen,a,\n", "line 2: got success rate ''"),
    ("real.csv", "task,policy,success_rate\nopen,a,1\nopen,a,1\n", "line 3: policy 'a' of task 'open' is there twice"),
    ("real.yaml", "open: 0.5\n", "got no table"),
    ("real.yaml", "open: [0.5\n", "got no YAML"),
    ("real.yaml", "open: {a: many}\n", "open.a: got success rate 'many'")])
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read_real(tmp_path / name)
    with pytest.raises(DataError, match="No such file"):
        read_real(tmp_path / "none.csv")


def write_results(folder: Path, benchmark: str, **rates: float) -> Path:
    folder.mkdir()
    averages = [{"name": name, "success_rate": rate, "of": 1} for name, rate in rates.items()]
    (folder / "results.json").write_text(json.dumps({"run": {"benchmark": benchmark}, "averages": averages}))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["agreement", *map(str, arguments)])
    main()


def test_the_command_compares_results_with_a_table(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "real.yaml").write_text("open: {a: 0.9, b: 0.1}\nclose: {a: 0.5, b: 0.6}\n")
    first = write_results(tmp_path / "a", "visual_matching", open=0.8, close=0.7, average=0.75)
    second = write_results(tmp_path / "b", "visual_matching", open=0.2, close=0.1, average=0.15)
    run(monkeypatch, "--real", tmp_path / "real.yaml", "--sim", f"a={first}", "--sim", f"b={second}",
        "--json", tmp_path / "out.json")
    found = {row["task"]: row for row in json.loads((tmp_path / "out.json").read_text())}
    assert found["open"]["mmrv"] == 0.0 and found["close"]["mmrv"] == pytest.approx(0.1)
    assert found["average"]["simulated"] == pytest.approx([0.75, 0.15])
    assert "MMRV" in capsys.readouterr().out


def test_the_command_refuses_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real.yaml"
    real.write_text("open: {rt-1: 0.9, octo: 0.1}\n")
    first = write_results(tmp_path / "a", "visual_matching", open=0.8)
    other = write_results(tmp_path / "b", "variant_aggregation", open=0.8)
    for words, arguments in (
            ("--sim rt-2: .*did you mean 'rt-1'", [f"rt-2={first}"]),
            ("named twice", [f"octo={first}", f"octo={first}"]),
            ("of benchmark variant_aggregation, expected visual_matching", [f"octo={first}", f"rt-1={other}"]),
            ("got no averages", [f"octo={tmp_path / 'none'}"])):
        with pytest.raises(SystemExit, match=f"^agreement: .*{words}"):
            run(monkeypatch, "--real", real, *(word for pair in arguments for word in ("--sim", pair)))
    with pytest.raises(SystemExit):
        run(monkeypatch, "--real", real, "--sim", "octo")

"""Simulated results of several policies and a table of real ones in; how well the simulator ranks them out.

SIMPLER's two measures (Li et al. 2024, https://arxiv.org/abs/2405.05941, section III): the mean maximum rank violation
and Pearson's correlation, for each task and over their average.
Use: `ros2 run sim_bridges agreement --real real.csv --sim rt-1=outputs/rt1 --sim octo=outputs/octo`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from vla_policy.errors import DataError, VlaError, nearest

Rates = dict[str, dict[str, float]]  # task -> policy -> success rate
AVERAGE = "average"
COLUMNS = ("task", "policy", "success_rate")


@dataclass(frozen=True, slots=True)
class Agreement:
    """policies: compared, in order; simulated and real are theirs. pearson: None where one side is constant."""

    task: str
    policies: tuple[str, ...]
    simulated: tuple[float, ...]
    real: tuple[float, ...]
    mmrv: float
    pearson: float | None


def mean_maximum_rank_violation(simulated: Sequence[float], real: Sequence[float]) -> float:
    """For each policy the largest real difference to one that the simulator ranks the other way round; their mean.

    0: the simulator ranks as reality does. Ties count as SIMPLER's own code counts them: `a > b` must agree.
    """
    sim, true = np.asarray(simulated, np.float64), np.asarray(real, np.float64)
    violated = (sim[:, None] > sim) != (true[:, None] > true)
    return float(np.max(np.abs(true[:, None] - true) * violated, axis=1).mean())


def pearson_correlation(simulated: Sequence[float], real: Sequence[float]) -> float | None:
    """Pearson's r, -1 .. 1; None where it is not defined, because all simulated or all real rates are the same."""
    sim, true = (np.asarray(rates, np.float64) - np.mean(rates) for rates in (simulated, real))
    length = float(np.linalg.norm(sim) * np.linalg.norm(true))
    return None if math.isclose(length, 0.0, abs_tol=1e-12) else float(sim @ true) / length


def compare(simulated: Rates, real: Rates) -> list[Agreement]:
    """Each task that both have for two policies or more, and the average over these for policies that have them all.

    Raises: DataError where there is no such task.
    """
    shared = {task: [policy for policy in real[task] if policy in simulated[task]]
              for task in real if task in simulated}
    tasks = [task for task, policies in shared.items() if len(policies) > 1]
    if not tasks:
        raise DataError(f"agreement: got simulated tasks {', '.join(simulated)} and real tasks {', '.join(real)}, "
                        "expected a task with two policies in common; a policy must bear the same name on both sides")
    found = [_agreement(task, shared[task], simulated[task], real[task]) for task in tasks]
    everywhere = [policy for policy in shared[tasks[0]] if all(policy in shared[task] for task in tasks)]
    if len(tasks) > 1 and len(everywhere) > 1:
        sim, true = ({policy: float(np.mean([rates[task][policy] for task in tasks])) for policy in everywhere}
                     for rates in (simulated, real))
        found.append(_agreement(AVERAGE, everywhere, sim, true))
    return found


def _agreement(task: str, policies: Sequence[str], simulated: Mapping[str, float],
               real: Mapping[str, float]) -> Agreement:
    sim, true = ([rates[policy] for policy in policies] for rates in (simulated, real))
    return Agreement(task, tuple(policies), tuple(sim), tuple(true), mean_maximum_rank_violation(sim, true),
                     pearson_correlation(sim, true))


def read_real(path: Path) -> Rates:
    """A table of real success rates, 0 .. 1.

    YAML: task -> policy -> rate. CSV: with the columns task, policy, success_rate. Raises: DataError naming the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: {problem}; expected a YAML or CSV table of real success rates") from None
    rows = _csv_rows(path, text) if path.suffix == ".csv" else _yaml_rows(path, text)
    rates: Rates = {}
    for place, task, policy, value in rows:
        try:
            rate = float(value)
        except (TypeError, ValueError):
            rate = math.nan
        if not 0.0 <= rate <= 1.0:
            raise DataError(f"{path}, {place}: got success rate {value!r}, expected a share from 0 to 1")
        if policy in rates.setdefault(task, {}):
            raise DataError(f"{path}, {place}: policy '{policy}' of task '{task}' is there twice; keep one")
        rates[task][policy] = rate
    return rates


def _csv_rows(path: Path, text: str) -> list[tuple[str, str, str, object]]:
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: got columns {', '.join(reader.fieldnames or ())}, expected {', '.join(COLUMNS)}")
    return [(f"line {number}", str(row["task"]), str(row["policy"]), row["success_rate"])
            for number, row in enumerate(reader, 2)]


def _yaml_rows(path: Path, text: str) -> list[tuple[str, str, str, object]]:
    try:
        tables = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise DataError(f"{path}: got no YAML: {' '.join(str(problem).split())}") from None
    if not isinstance(tables, dict) or not all(isinstance(policies, dict) for policies in tables.values()):
        raise DataError(f"{path}: got no table, expected `TASK: {{POLICY: RATE, …}}` for each task")
    return [(f"{task}.{policy}", str(task), str(policy), rate)
            for task, policies in tables.items() for policy, rate in policies.items()]


def read_simulated(named: Mapping[str, Path]) -> Rates:
    """Averages of evaluations by the name of their policy: folders of `evaluate --benchmark … --output FOLDER`.

    Raises: DataError for a folder without results or of another benchmark than the first.
    """
    rates: Rates = {}
    expected = ""
    for policy, folder in named.items():
        path = folder / "results.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            averages, benchmark = found["averages"], found["run"]["benchmark"]
        except (OSError, json.JSONDecodeError, KeyError) as problem:
            raise DataError(f"{path}: got no averages ({type(problem).__name__}: {problem}), expected the results of "
                            "`evaluate --benchmark NAME --output FOLDER`") from None
        expected = expected or benchmark
        if benchmark != expected:
            raise DataError(f"{path}: got results of benchmark {benchmark}, expected {expected}, that of the first "
                            "policy; compare sets of their own kind")
        for average in averages:
            if average["name"] != AVERAGE:
                rates.setdefault(average["name"], {})[policy] = average["success_rate"]
    return rates


def _named_folder(text: str) -> tuple[str, Path]:
    policy, equals, folder = text.partition("=")
    if not (policy and equals and folder):
        raise argparse.ArgumentTypeError(f"got '{text}', expected POLICY=FOLDER")
    return policy, Path(folder).expanduser()


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="agreement", description="How well does a simulator rank policies?")
    parser.add_argument("--real", type=Path, required=True, help="YAML or CSV table of real success rates")
    parser.add_argument("--sim", type=_named_folder, action="append", required=True, metavar="POLICY=FOLDER",
                        help="an evaluation's output; once for each policy")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    return parser.parse_args(arguments)


def main() -> None:
    """The `agreement` command."""
    options = parse_arguments(sys.argv[1:])
    try:
        named = dict(options.sim)
        if len(named) < len(options.sim):
            raise DataError("--sim: a policy is named twice; give each a name of its own")
        real = read_real(options.real)
        for policy in named:
            known = dict.fromkeys(name for policies in real.values() for name in policies)
            if policy not in known:
                raise DataError(f"--sim {policy}: {options.real} has no such policy; {nearest(policy, known)}")
        found = compare(read_simulated(named), real)
    except VlaError as problem:
        sys.exit(f"agreement: {problem}")
    Console(highlight=False, width=110).print(_table(found))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n", encoding="utf-8")


def _table(found: Sequence[Agreement]) -> Table:
    table = Table(title="Simulation against reality", title_justify="left")
    for heading in ("task", "policies", "MMRV", "Pearson's r"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for one in found:
        pearson = "-" if one.pearson is None else f"{one.pearson:.3f}"
        table.add_row(one.task, str(len(one.policies)), f"{one.mmrv:.3f}", pearson)
    return table


if __name__ == "__main__":
    main()

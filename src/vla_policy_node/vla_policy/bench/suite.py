"""A GPU machine in, a folder of measurements and one table out: every model and kind of engine in one call.

    python -m vla_policy.bench.suite OUTPUT_FOLDER                on a GPU, within `--minutes`
    python -m vla_policy.bench.suite OUTPUT_FOLDER --dry-run      the same with twins on this CPU, to try it

Each part is a process of its own with a limit of its own: one that fails, hangs or runs out of memory is named in the
table and the others go on. The table is written anew after each part, so it is there whenever the run is cut off. The
parts that every claim needs come first, those that compile last.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vla_policy.bench.report import machine, read_json, write_json
from vla_policy.errors import ConfigError, VlaError

LEAST_S = 20.0  # a part that has less left is not begun
LAST_LINES = 6  # of a part that failed


@dataclass(frozen=True, slots=True)
class Part:
    """One call of the bench. limit_s: its time. aim: what must hold of it, for the table; checks by `aims`."""

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    aims: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """report: what it measured, None where it did not. problem: why, in a few words."""

    part: Part
    seconds: float
    report: dict[str, Any] | None
    problem: str = ""


# Largest milliseconds of a step, times the floor; smallest ratios to the plain loops.
KOSMOS_AIMS = {"p50_ms": 10.0, "times_floor": 3.0, "ratio_to_frame_loop": 4.0, "ratio_to_window_loop": 15.0}
# Size and aims; images have 224 px, or the next side above that a model takes.
MODELS = {"kosmos": ("published", KOSMOS_AIMS), "paligemma": ("published", {"p50_ms": 20.0}),
          "qwen-vl": ("published", {"p50_ms": 20.0}), "smolvlm": ("500m", {"p50_ms": 5.0})}
SIDES = {"smolvlm": "256"}
FIGURES = ("--sections", "loops", "floor")
LARGEST = ("p50_ms", "times_floor")  # aims that must not be passed; the others must be reached


def parts() -> Iterator[Part]:
    """In the order in which they matter."""
    for backbone, (size, aims) in MODELS.items():
        modes = ("--modes", "eager", "graph")
        yield Part(f"{backbone}, eager and graph", (*_model(backbone, size), *modes, *FIGURES), 100, aims)
    for dtype in ("int8", "fp8"):
        yield Part(f"kosmos in {dtype}", ("--backbone", "kosmos", "--dtype", dtype, "--modes", "graph", *FIGURES), 80)
    scaling = ("--modes", "graph", "--sections", "stages", "scaling", "--quick")
    yield Part("kosmos, stages and scaling", (*_model("kosmos", "published"), *scaling), 120)
    for backbone, (size, aims) in MODELS.items():
        yield Part(f"{backbone}, compile", (*_model(backbone, size), "--modes", "compile", *FIGURES), 150, aims)


def _model(backbone: str, size: str) -> tuple[str, ...]:
    return ("--backbone", backbone, "--size", size, "--dtype", "bfloat16", "--side", SIDES.get(backbone, "224"))


def run_part(part: Part, folder: Path, limit_s: float, more: Sequence[str]) -> Outcome:
    """Measure in a process of its own, whose output goes to a file beside its JSON."""
    stem = folder / part.name.replace(",", "").replace(" ", "-")
    report_path, log_path = stem.with_suffix(".json"), stem.with_suffix(".log")
    report_path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "vla_policy.bench", *part.arguments, *more, "--json", str(report_path)]
    began, problem = time.monotonic(), ""
    with log_path.open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=limit_s, check=False)
            if done.returncode:
                problem = f"ended with {done.returncode}: " + " | ".join(_last_lines(log_path))
        except subprocess.TimeoutExpired:
            problem = f"not done within {limit_s:.0f} s"
    try:
        report = read_json(report_path) if report_path.exists() else None
    except ConfigError as broken:
        report, problem = None, problem or str(broken)
    failed = [f"{name}: {section['failed']}" for name, section in (report or {"sections": {}})["sections"].items()
              if "failed" in section]
    return Outcome(part, time.monotonic() - began, report, "; ".join(failed) or problem)


def _last_lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-LAST_LINES:]


def rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """One for every kind of engine that a part measured."""
    sections = (outcome.report or {"sections": {}})["sections"]
    floor = sections.get("floor", {})
    for mode, row in sections.get("loops", {}).get("rows", {}).items():
        if "ratio_to_window_loop" not in row:
            continue
        kept = {key: row.get(key) for key in ("p50_ms", "p95_ms", "p99_ms", "cold_ms", "warm_up_s", "peak_gib",
                                              "ratio_to_frame_loop", "ratio_to_window_loop", "max_action_error",
                                              "runs_as", "fallbacks")}
        floor_ms = floor.get("floor_ms")
        yield kept | {"part": outcome.part.name, "mode": mode, "floor_ms": floor_ms,
                      "times_floor": row["p50_ms"] / floor_ms if floor_ms else None}


def unmet(row: Mapping[str, Any], aims: Mapping[str, float]) -> list[str]:
    """What a row does not hold of its aims, in words."""
    words = []
    for what, aim in aims.items():
        got = row.get(what)
        if got is None or (got > aim if what in LARGEST else got < aim):
            got_words = "not measured" if got is None else f"{got:.1f}"
            words.append(f"{what} {got_words}, aim {'<=' if what in LARGEST else '>='} {aim:g}")
    return words


def table(outcomes: Sequence[Outcome], facts: Mapping[str, Any]) -> str:
    """Markdown: a row for every model and kind of engine, then what was not measured, then what fell back."""
    lines = [f"Measured on {facts.get('gpu', facts['cpu'])}, torch {torch.__version__}. Random weights; two cameras, "
             "window 16, batch 1.", "",
             "| part | engine | p50 ms | p95 ms | floor ms | x floor | x faster than frame loop | than window loop | "
             "action error | GiB | warm-up s | aims |", "|" + "---|" * 12]
    told = []
    for outcome in outcomes:
        for row in rows(outcome):
            numbers = [_number(row[key], form) for key, form in (
                ("p50_ms", ".2f"), ("p95_ms", ".2f"), ("floor_ms", ".2f"), ("times_floor", ".1f"),
                ("ratio_to_frame_loop", ".1f"), ("ratio_to_window_loop", ".1f"), ("max_action_error", ".1e"),
                ("peak_gib", ".1f"), ("warm_up_s", ".0f"))]
            missed = unmet(row, outcome.part.aims)
            verdict = "-" if not outcome.part.aims else "held" if not missed else "; ".join(missed)
            lines.append(f"| {row['part']} | {row['mode']} | {' | '.join(numbers)} | {verdict} |")
            told += [f"- {row['part']}: {fallback}" for fallback in row["fallbacks"]]
        if outcome.problem:
            told.append(f"- **{outcome.part.name}**: {outcome.problem}")
    return "\n".join([*lines, "", *told]) + "\n"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def run(folder: Path, minutes: float, dry: bool) -> list[Outcome]:
    """All parts until the time is up. Raises: ConfigError where there is no GPU, or the folder cannot be made."""
    if not dry and not torch.cuda.is_available():
        raise ConfigError("suite: torch sees no NVIDIA GPU here; run it on a machine with one, or try --dry-run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigError(f"{folder}: cannot be made: {problem.strerror}; choose another place") from None
    device = "cpu" if dry else "cuda"
    more = ["--device", device, "--seconds", "0.2" if dry else "2"]
    more += ["--size", "twin", "--window", "4"] if dry else []
    facts, until, outcomes = machine(device), time.monotonic() + 60 * minutes, []
    for part in parts():
        left_s = until - time.monotonic()
        if left_s < LEAST_S:
            outcomes.append(Outcome(part, 0.0, None, "not begun: the time was up"))
        else:
            sys.stdout.write(f"{part.name} ...\n")
            sys.stdout.flush()
            outcomes.append(run_part(part, folder, min(part.limit_s, left_s), more))
        text = table(outcomes, facts)
        (folder / "table.md").write_text(text, encoding="utf-8")
        write_json(folder / "suite.json", {
            "machine": facts, "sections": {outcome.part.name: {
                "seconds": outcome.seconds, "problem": outcome.problem,
                "rows": {row["mode"]: row for row in rows(outcome)}} for outcome in outcomes}})
    sys.stdout.write(text)
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns 1 where a part was not measured."""
    parser = argparse.ArgumentParser(prog="python -m vla_policy.bench.suite", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for the reports, table.md and suite.json")
    parser.add_argument("--minutes", type=float, default=7.5, help="when the last part must be done (default 7.5)")
    parser.add_argument("--dry-run", action="store_true", help="twins on the CPU: figures say nothing")
    options = parser.parse_args(arguments)
    try:
        outcomes = run(options.output, options.minutes, options.dry_run)
    except VlaError as problem:
        sys.stderr.write(f"suite: {problem}\n")
        return 1
    return 1 if any(outcome.problem for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())

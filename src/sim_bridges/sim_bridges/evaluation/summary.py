"""Trial results in, results.json and reports in Markdown and HTML out: the same however the trials were shared out."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sim_bridges.chains import summarise_chains
from sim_bridges.evaluation.benchmarks import find_benchmark
from sim_bridges.evaluation.trials import CHAIN, TrialResult
from sim_bridges.results import EpisodeResult, summarise, where_from

TIMED = ("latency_ms", "control_rate_hz", "on_time")  # differ from run to run; they stand in summary.json
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img,video{max-width:100%}code{background:#f4f4f4;padding:.1rem .3rem}"""


def results(run: Mapping[str, Any], trials: Sequence[TrialResult]) -> dict[str, Any]:
    """The content of results.json: what was played and what came of it, nothing that time or machine decide."""
    episodes = [episode for trial in trials for episode in trial.episodes]
    summary = {key: value for key, value in summarise(episodes).items() if key not in TIMED}
    summary["rows"] = [_row(episode) for episode in episodes]
    found = {"run": dict(run), **summary}
    chains = [trial.chain for trial in trials if trial.trial.task == CHAIN]
    if chains:
        found["chains"] = summarise_chains(chains)
    if run.get("benchmark"):
        rates = {row["task"]: row["success_rate"] for row in summary["tasks"]}
        found["averages"] = [asdict(one) for one in find_benchmark(run["sim"], run["benchmark"]).averages(rates)]
    return found


def write_report(folder: Path, found: Mapping[str, Any]) -> None:
    """Write results.json, report.md and report.html, with the pictures and films that lie in the folder."""
    (folder / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    tables = _tables(found)
    (folder / "report.md").write_text(_markdown(found, tables), encoding="utf-8")
    (folder / "report.html").write_text(_html(folder, found, tables), encoding="utf-8")


Table = tuple[str, list[str], list[list[str]]]  # title, headings, rows
SHARES = ("success", "share", "95 % interval", "mean steps")


def _row(episode: EpisodeResult) -> dict[str, Any]:
    digest = hashlib.sha256(episode.commands.tobytes()).hexdigest()[:16]
    return {
        "task": episode.task,
        "seed": episode.seed,
        "instruction": episode.instruction,
        "success": episode.success,
        "reason": episode.reason,
        "message": episode.message,
        "steps": episode.steps,
        "commands_sha256": digest,
        **where_from(episode),
    }


def _tables(found: Mapping[str, Any]) -> list[Table]:
    tables: list[Table] = []
    if "chains" in found:
        chains = found["chains"]
        rows = [
            [
                str(row["instructions"]),
                f"{row['successes']}/{chains['chains']}",
                _percent(row["success_rate"]),
                interval_text(row),
            ]
            for row in chains["in_a_row"]
        ]
        tables.append(
            (
                f"Instructions in a row: {chains['average_length']:.2f} on average over {chains['chains']} chains",
                ["in a row", "chains", "share", "95 % interval"],
                rows,
            )
        )
    if "averages" in found:
        rows = [[row["name"], _percent(row["success_rate"]), str(row["of"])] for row in found["averages"]]
        tables.append((f"Averages of {found['run']['benchmark']}", ["average", "share", "of rates"], rows))
    if "settings" in found:
        rows = [[row["setting"], *shares(row)] for row in found["settings"]]
        tables.append(("Settings", ["setting", *SHARES], rows))
        tables.append(cross_table(found))
    rows = [[row["task"], *shares(row)] for row in found["tasks"]]
    rows.append(["all", "", _percent(found["success_rate"]), interval_text(found), ""])
    tables.append(("Tasks", ["task", *SHARES], rows))
    tables += _failures(found["rows"])
    if any("recording" in row for row in found["rows"]):
        tables.append(_recordings(found["rows"]))
    return tables


def cross_table(found: Mapping[str, Any]) -> Table:
    """Successes of each task in each setting; a dash where it was not played."""
    settings = [row["setting"] for row in found["settings"]]
    rows = []
    for task in (row["task"] for row in found["tasks"]):
        cells = [[row["success"] for row in found["rows"] if (row["task"], row.get("setting")) == (task, setting)]
                 for setting in settings]
        rows.append([task, *(f"{sum(cell)}/{len(cell)}" if cell else "-" for cell in cells)])
    return "Tasks in each setting", ["task", *settings], rows


def shares(row: Mapping[str, Any]) -> list[str]:
    """The cells of SHARES for a row of a summary."""
    steps = row["mean_steps_of_successes"]
    return [
        f"{row['successes']}/{row['episodes']}",
        _percent(row["success_rate"]),
        interval_text(row),
        "-" if steps is None else f"{steps:.0f}",
    ]


def _failures(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    failed = [
        [_place(row), str(row["seed"]), row["instruction"], row["reason"].lower(), row["message"]]
        for row in rows
        if not row["success"]
    ]
    return [(f"Failures ({len(failed)})", ["task", "seed", "instruction", "end", "why"], failed)] if failed else []


def _recordings(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        [_place(row), str(row["seed"]), "success" if row["success"] else "failure", row.get("recording", "-")]
        for row in rows
    ]
    return "Recordings", ["task", "seed", "outcome", "bag"], cells


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['task']}, {row['setting']}" if "setting" in row else row["task"]


def _markdown(found: Mapping[str, Any], tables: Sequence[Table]) -> str:
    lines = ["# Evaluation", "", *(f"- {key}: {value}" for key, value in found["run"].items()), ""]
    for title, headings, rows in tables:
        lines += [f"## {title}", "", _line(headings), _line(["---", *["---:"] * (len(headings) - 1)])]
        lines += [*(_line(row) for row in rows), ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _html(folder: Path, found: Mapping[str, Any], tables: Sequence[Table]) -> str:
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>Evaluation</title><style>{STYLE}</style><h1>Evaluation</h1><ul>"
    ]
    parts += [
        f"<li>{html.escape(key)}: <code>{html.escape(str(value))}</code></li>" for key, value in found["run"].items()
    ]
    parts.append("</ul>")
    for title, headings, rows in tables:
        parts.append(f"<h2>{html.escape(title)}</h2><table><tr>{_cells('th', headings)}</tr>")
        parts += [f"<tr>{_cells('td', row)}</tr>" for row in rows]
        parts.append("</table>")
    for picture in sorted(folder.glob("*.png")):
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f"<h2>{picture.stem}</h2><img alt='{picture.stem}' src='data:image/png;base64,{data}'>")
    films = sorted((folder / "failures").glob("*.mp4"))
    if films:
        parts.append("<h2>Films of failures</h2>")
        parts += [
            f"<p>{film.stem}<br><video controls preload='none' src='failures/{film.name}'></video></p>"
            for film in films
        ]
    return "\n".join(parts) + "\n"


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval_text(row: Mapping[str, Any]) -> str:
    """The 95 % interval of a row, in words."""
    low, high = row["interval_95"]
    return f"{100 * low:.0f} to {100 * high:.0f} %"

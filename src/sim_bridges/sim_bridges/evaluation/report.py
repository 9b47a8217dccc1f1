"""Trial results in as they come; a line for each episode, closing tables and the output files out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sim_bridges.evaluation.store import make_folder
from sim_bridges.evaluation.summary import (
    SHARES,
    cross_table,
    interval_text,
    results,
    shares,
    write_report,
)
from sim_bridges.evaluation.trials import TrialResult
from sim_bridges.media import EpisodeFilm, VideoWriter, plot_chains, plot_commands, plot_latencies
from sim_bridges.results import EpisodeResult, summarise
from vla_policy.contract import RobotContract

WIDTH = 118  # also where the output is piped through a launch, which is no terminal


class Report:
    """What a person sees and finds. output: folder for all files. summary: a further place for summary.json.

    trials: how many there are in all. bar: whether a progress bar may be drawn; it would paint over a person's input.

    Raises: ConfigError for a place that cannot be written, before hours of episodes rather than after them.
    """

    def __init__(
        self,
        contract: RobotContract,
        output: Path | None,
        summary: Path | None,
        video: bool,
        trials: int,
        bar: bool = True,
    ) -> None:
        self._contract = contract
        self._output = output
        self._summary = summary
        self._console = Console(width=WIDTH, highlight=False)
        self._count = 0
        self._trials = trials
        columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, console=self._console, transient=True, disable=not (bar and self._console.is_terminal)
        )
        self._bar = self._progress.add_task("", total=trials)
        self._writer: VideoWriter | None = None
        if output is not None:
            make_folder(output)
        if summary is not None:
            make_folder(summary.parent)
        if video:
            self._writer = VideoWriter(output / "episodes.mp4", contract.control_rate_hz)
            self._film = EpisodeFilm(self._writer, list(contract.cameras))

    def __enter__(self) -> Report:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def watch(self, stamp_ns: int, camera: str, image: NDArray[np.uint8]) -> None:
        """Take a camera image for the video."""
        self._film.add(stamp_ns, camera, image)

    def already(self, count: int) -> None:
        """Say how many trials were played before."""
        if count:
            self._console.print(f"{count} of {self._trials} trials are there already; going on with the rest")
        self._progress.update(self._bar, completed=count)

    def trial(self, result: TrialResult) -> None:
        """Say how the episodes of a trial ended."""
        for episode in result.episodes:
            self._episode(episode)
        if len(result.steps) > 1:
            self._console.print(
                f"      chain {result.trial.seed}: {result.chain.solved} of {len(result.steps)} in a row"
            )
        self._progress.advance(self._bar)

    def finish(self, run: Mapping[str, Any], trials: Sequence[TrialResult]) -> None:
        """Print the tables and write the files."""
        self._progress.stop()
        episodes = [episode for trial in trials for episode in trial.episodes]
        found, summary = results(run, trials), summarise(episodes)
        if "chains" in found:
            self._console.print(_chain_table(found["chains"]))
            summary["chains"] = found["chains"]
        if "settings" in found:
            self._console.print(_share_table("setting", found["settings"]))
            self._console.print(_plain_table(*cross_table(found)))
        self._console.print(_table(summary))
        if "averages" in found:
            self._console.print(_average_table(run["benchmark"], found["averages"]))
        for path in {p for p in (self._summary, self._output and self._output / "summary.json") if p}:
            path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        if self._output is not None and episodes:
            self._plot(episodes)
            if "chains" in found:
                plot_chains(found["chains"], self._output / "chains.png")
            write_report(self._output, found)
            self._console.print(f"written to {self._output}")

    def _episode(self, result: EpisodeResult) -> None:
        self._count += 1
        latency = result.latencies_ms.get("sensor_to_command") or result.latencies_ms.get("model") or ()
        middle = f"{np.median(latency):5.1f} ms" if len(latency) else "-"
        outcome = "[green]success[/]" if result.success else f"[red]{result.reason.lower()}[/]"
        self._console.print(
            f"{self._count:>4}  {result.instruction:<40} {outcome:<26} {result.steps:>4} steps "
            f"{result.control_rate_hz:6.1f} Hz  {middle}"
        )
        if self._writer is not None:
            self._film.develop(result)

    def _plot(self, episodes: Sequence[EpisodeResult]) -> None:
        longest = max(episodes, key=lambda result: result.steps)
        contract = self._contract
        plot_commands(
            longest,
            contract.command_names,
            contract.command_units,
            contract.control_rate_hz,
            self._output / "commands.png",
        )
        plot_latencies(episodes, self._output / "latencies.png")


def _table(summary: Mapping[str, Any]) -> Table:
    table = _share_table("task", summary["tasks"], f"{summary['episodes']} episodes")
    table.add_section()
    table.add_row("all", "", f"{100 * summary['success_rate']:.1f} %", interval_text(summary), "")
    return table


def _share_table(of: str, rows: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    return _plain_table(title, (of, *SHARES), [(row[of], *shares(row)) for row in rows])


def _plain_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _average_table(benchmark: str, averages: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=f"Averages of {benchmark}", title_justify="left")
    for heading in ("average", "success", "of rates"):
        table.add_column(heading, justify="left" if heading == "average" else "right")
    for row in averages:
        table.add_row(row["name"], f"{100 * row['success_rate']:.1f} %", str(row["of"]))
    return table


def _chain_table(chains: Mapping[str, Any]) -> Table:
    title = f"{chains['average_length']:.2f} instructions in a row on average over {chains['chains']} chains"
    table = Table(title=title, title_justify="left")
    for heading in ("in a row", "chains", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in chains["in_a_row"]:
        table.add_row(str(row["instructions"]), f"{row['successes']}/{chains['chains']}", interval_text(row))
    return table

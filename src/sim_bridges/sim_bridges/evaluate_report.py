"""Episode results in as they come; a line for each, a closing table and the output files out."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sim_bridges.chains import ChainResult
from sim_bridges.media import EpisodeFilm, VideoWriter, plot_chains, plot_commands, plot_latencies
from sim_bridges.results import EpisodeResult
from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError

WIDTH = 118  # also where the output is piped through a launch, which is no terminal


class Report:
    """What a person sees and finds. `output`: folder for all files; `summary`: a further place for summary.json.

    Raises: ConfigError for a place that cannot be written, before hours of episodes rather than after them.
    """

    def __init__(self, contract: RobotContract, output: Path | None, summary: Path | None, video: bool) -> None:
        self._contract = contract
        self._output = output
        self._summary = summary
        self._console = Console(width=WIDTH, highlight=False)
        self._count = 0
        self._writer: VideoWriter | None = None
        if output is not None:
            _make_folder(output)
        if summary is not None:
            _make_folder(summary.parent)
        if video:
            self._writer = VideoWriter(output / "episodes.mp4", contract.control_rate_hz)
            self._film = EpisodeFilm(self._writer, list(contract.cameras))

    def __enter__(self) -> Report:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def watch(self, stamp_ns: int, camera: str, image: NDArray[np.uint8]) -> None:
        """Take a camera image for the video."""
        self._film.add(stamp_ns, camera, image)

    def episode(self, result: EpisodeResult) -> None:
        """Say how one episode ended."""
        self._count += 1
        latency = result.latencies_ms.get("sensor_to_command") or result.latencies_ms.get("model") or ()
        middle = f"{np.median(latency):5.1f} ms" if len(latency) else "-"
        outcome = "[green]success[/]" if result.success else f"[red]{result.reason.lower()}[/]"
        self._console.print(f"{self._count:>4}  {result.instruction:<36} {outcome:<26} {result.steps:>4} steps "
                            f"{result.control_rate_hz:6.1f} Hz  {middle}")
        if self._writer is not None:
            self._film.develop(result)

    def chain(self, result: ChainResult) -> None:
        """Say how one chain ended: the instructions in order, and how many succeeded."""
        self._count += 1
        last = result.episodes[-1]
        said = " > ".join(episode.task for episode in result.episodes)
        outcome = "[green]all[/]" if last.success else f"[red]{last.reason.lower()}[/]"
        self._console.print(f"{self._count:>4}  {result.solved} of {len(result.chain.steps)}  {outcome}  {said}",
                            overflow="ellipsis", no_wrap=True)

    def finish(self, results: Sequence[EpisodeResult], summary: Mapping[str, Any]) -> None:
        """Print the table and write the files."""
        self._console.print(_table(summary))
        if "chains" in summary:
            self._console.print(_chain_table(summary["chains"]))
        for path in {p for p in (self._summary, self._output and self._output / "summary.json") if p}:
            path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        if self._output is not None and results:
            self._write_files(results)
            if "chains" in summary:
                plot_chains(summary["chains"], self._output / "chains.png")
            self._console.print(f"written to {self._output}")

    def _write_files(self, results: Sequence[EpisodeResult]) -> None:
        longest = max(results, key=lambda result: result.steps)
        contract = self._contract
        plot_commands(longest, contract.command_names, contract.command_units, contract.control_rate_hz,
                      self._output / "commands.png")
        plot_latencies(results, self._output / "latencies.png")
        names = unique_names([f"{result.task}/{result.seed}" for result in results])
        arrays = {name: result.commands for name, result in zip(names, results, strict=True)}
        np.savez_compressed(self._output / "commands.npz", **arrays)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names; a chain can ask for a task twice: the second gets `#2`, and so on."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return unique


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigError(f"{folder}: {problem.strerror}; expected a folder for the results; name another") from None
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder}: not writable; expected a folder for the results; name another")


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"{summary['episodes']} episodes", title_justify="left")
    for heading in ("task", "success", "95 % interval", "mean steps"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for row in summary["tasks"]:
        steps = row["mean_steps_of_successes"]
        table.add_row(row["task"], f"{row['successes']}/{row['episodes']}", _interval(row),
                      "-" if steps is None else f"{steps:.0f}")
    table.add_section()
    table.add_row("all", f"{100 * summary['success_rate']:.1f} %", _interval(summary), "")
    return table


def _chain_table(chains: Mapping[str, Any]) -> Table:
    table = Table(title=f"{chains['chains']} chains, {chains['average_length']:.2f} instructions in a row on average",
                  title_justify="left")
    for heading in ("in a row", "success", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in chains["in_a_row"]:
        table.add_row(str(row["instructions"]), f"{row['successes']}/{chains['chains']}", _interval(row))
    return table


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["interval_95"]
    return f"{100 * low:.0f} to {100 * high:.0f} %"

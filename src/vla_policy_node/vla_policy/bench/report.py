"""What was measured in; a JSON file, a plot, or the ratios of two such files out."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vla_policy.errors import ConfigError

FORMAT = "vla_policy bench 1"
COMPARED = ("p50_ms", "p95_ms", "p99_ms", "cpu_p50_ms", "cold_ms", "floor_ms", "per_robot_ms", "ratio_to_window_loop",
            "ratio_to_frame_loop", "times_floor", "bytes_per_s", "flops_per_s", "peak_gib", "window_64_over_4")


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    facts: dict[str, Any] = {"cpu": _cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
                             "system": platform.platform()}
    if device.startswith("cuda"):
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda,
                  "gpu_gib": torch.cuda.get_device_properties(0).total_memory / 2**30}
    return facts


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Raises: ConfigError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT, **report}, indent=1) + "\n", encoding="utf-8")
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be written: {problem.strerror}; choose another place") from None


def read_json(path: Path) -> dict[str, Any]:
    """Raises: ConfigError for a file that is no report."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"{path}: {problem.strerror}; give a file that `bench --json` wrote") from None
    except ValueError as problem:
        raise ConfigError(f"{path}: got no JSON ({problem}); give a file that `bench --json` wrote") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        got = report.get("format") if isinstance(report, dict) else type(report).__name__
        raise ConfigError(f"{path}: got format {got!r}, expected '{FORMAT}'; give a file that `bench --json` wrote")
    return report


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each figure that both have: its place, both values, new over old. Raises: ConfigError for none."""
    before, after = dict(_figures(old["sections"])), dict(_figures(new["sections"]))
    shared = [place for place in before if place in after]
    if not shared:
        raise ConfigError("compare: the two files share no figure; measure the same sections with the same modes")
    width = max(len(place) for place in shared)
    lines = [f"{place:{width}} {before[place]:14.4g} {after[place]:14.4g} "
             + (f"{after[place] / before[place]:8.3f}" if before[place] else "       -") for place in shared]
    told = [f"not the same {what}: {old.get(what)} and {new.get(what)}" for what in ("machine", "settings")
            if _lasting(old.get(what)) != _lasting(new.get(what))]
    return [*told, f"{'':{width}} {'old':>14} {'new':>14} {'new/old':>8}", *lines]


def _lasting(facts: Any) -> Any:
    return {key: value for key, value in facts.items() if key != "load"} if isinstance(facts, dict) else facts


def _figures(node: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        here = f"{place}/{key}" if place else str(key)
        if isinstance(value, (int, float)) and key in COMPARED:
            yield here, float(value)
        yield from _figures(value, here)


def plot(path: Path, report: Mapping[str, Any]) -> None:
    """Loops as bars, scaling as lines. Raises: ConfigError where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("--plot: matplotlib is not installed; pip install matplotlib, or leave it out") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sections = report["sections"]
    scaling = sections.get("scaling", {}).get("rows", {})
    rows = sections.get("loops", {}).get("rows", {})
    figure, axes = pyplot.subplots(1, 1 + len(scaling), figsize=(6 + 3 * len(scaling), 3.8), squeeze=False)
    loops, *others = axes[0]
    late = [row["p95_ms"] - row["p50_ms"] for row in rows.values()]
    bars = loops.barh(list(rows), [row["p50_ms"] for row in rows.values()], xerr=[[0] * len(rows), late])
    loops.bar_label(bars, fmt="%.1f", padding=4)
    loops.set(xlabel="ms a step: p50, whisker to p95", xscale="log" if rows else "linear")
    loops.set_xlim(right=5 * loops.get_xlim()[1])  # room for the numbers
    for axis, (what, found) in zip(others, scaling.items(), strict=True):
        axis.plot([int(value) for value in found], [row["p50_ms"] for row in found.values()], marker="o")
        axis.set(xlabel=what, ylabel="ms a step", xscale="log" if what != "cameras" else "linear")
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
        axis.set_xticks([int(value) for value in found], list(found))
        axis.minorticks_off()
    figure.suptitle(report["case"])
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

"""Points of a run and measurements in, PNG pictures out; each is None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla_training.plots import COLOURS, INK, LIGHT, picture
from vla_training.watch.measured import ClosedLoopResult, DrawnEpisode, OpenLoopResult
from vla_training.watch.points import Point, curve

LOG_FROM = 5  # largest loss over smallest from which on an axis is logarithmic


def draw_losses(points: list[Point], path: Path) -> Path | None:
    """A panel for each part of the loss, in training and on held-out episodes."""
    parts = _names(points, "loss/")
    if not parts:
        return None
    with picture(path, len(parts), columns=2 if len(parts) == 4 else 3) as axes:
        for axis, part in zip(axes, parts, strict=True):
            steps, values = curve(points, f"loss/{part}")
            axis.plot(steps, values, color=COLOURS[0], label="training")
            held_steps, held = curve(points, f"validation/{part}")
            if held:
                axis.plot(held_steps, held, "o-", color=COLOURS[1], markersize=3, label="held out")
            if 0 < LOG_FROM * min(values + held) < max(values + held):
                axis.set_yscale("log")
            axis.set(title=part, xlabel="step")
            axis.locator_params(axis="x", integer=True)
            axis.legend()
    return path


def draw_rate(points: list[Point], path: Path) -> Path | None:
    """Learning rate and gradient norm over the steps."""
    return _draw_curves(points, path, (("learning_rate", "learning rate", 1.0),
                                       ("gradient_norm", "gradient norm before clipping", 1.0)))


def draw_speed(points: list[Point], path: Path) -> Path | None:
    """Samples a second, the time spent waiting for data and watching, and memory over the steps."""
    return _draw_curves(points, path, (("speed/samples_per_s", "samples a second", 1.0),
                                       ("speed/data_wait_share", "waiting for data [%]", 100.0),
                                       ("speed/watch_share", "watching, next to training [%]", 100.0),
                                       ("memory/rss_gib", "resident memory [GiB]", 1.0),
                                       ("memory/gpu_gib", "GPU memory [GiB]", 1.0)))


def draw_action_errors(result: OpenLoopResult, path: Path) -> Path:
    """Mean absolute action error: over the rows of a chunk, a panel for each dimension."""
    with picture(path, len(result.names), columns=4, height=1.9) as axes:
        rows = np.arange(len(result.error_KA))
        for column, axis in enumerate(axes):
            axis.bar(rows[: result.execute_rows], result.error_KA[: result.execute_rows, column], color=COLOURS[0])
            axis.bar(rows[result.execute_rows :], result.error_KA[result.execute_rows :, column], color=LIGHT)
            axis.axhline(result.spread_A[column], color=COLOURS[1], linewidth=1, linestyle="--")
            axis.set(title=f"{result.names[column]} [{result.units[column]}]", xlabel="row of the chunk")
            axis.ticklabel_format(axis="y", scilimits=(-2, 3))
    return path


def draw_error_curve(points: list[Point], path: Path) -> Path | None:
    """Action error over the steps: each dimension's, as a share of how much the recorded actions vary."""
    names = _names(points, "open_loop/relative/")
    if not names:
        return None
    with picture(path, 1, columns=1, height=2.6) as (axis,):
        for name in names:
            axis.plot(*curve(points, f"open_loop/relative/{name}"), "o-", markersize=3, label=name)
        axis.plot(*curve(points, "open_loop/relative_error"), color=INK, linewidth=2.4, label="mean")
        axis.set(xlabel="step", ylabel="action error / spread", ylim=(0, None))
        axis.locator_params(axis="x", integer=True)
        axis.legend(ncols=8, loc="lower left", bbox_to_anchor=(0, 1))
    return path


def draw_trajectory(drawn: DrawnEpisode, names: Sequence[str], units: Sequence[str], path: Path) -> Path:
    """Recorded actions, the actions the policy would have executed, and the tails of its chunks, over time."""
    with picture(path, len(names), columns=2, height=1.35) as axes:
        seconds = np.arange(len(drawn.recorded_NA)) * drawn.row_s
        for column, axis in enumerate(axes):
            for start, chunk_KA in zip(drawn.starts, drawn.chunks_CKA, strict=True):
                rows = seconds[start : start + len(chunk_KA)]
                axis.plot(rows, chunk_KA[: len(rows), column], color=LIGHT, linewidth=0.8)
            axis.plot(seconds, drawn.recorded_NA[:, column], color=INK, linewidth=1.6, label="recorded")
            axis.plot(seconds, drawn.executed_NA[:, column], color=COLOURS[1], linewidth=1.1, label="predicted")
            axis.set_title(f"{names[column]} [{units[column]}]")
            axis.ticklabel_format(axis="y", scilimits=(-3, 3))
        for axis in axes[-2:]:
            axis.set_xlabel("s")
        axes[0].legend(ncols=2, loc="best")
    return path


def draw_success(results: list[ClosedLoopResult], path: Path) -> Path | None:
    """Success in the simulator over the steps, with its 95 % interval."""
    if not results:
        return None
    with picture(path, 1, columns=1, height=2.6) as (axis,):
        steps = [result.step for result in results]
        rates = np.array([result.success_rate for result in results])
        low, high = np.array([result.interval_95 for result in results]).T
        reach = 100 * np.array([rates - low, high - rates]).clip(0)
        label = f"{results[-1].sim}, 95 % interval"
        axis.errorbar(steps, 100 * rates, reach, fmt="o-", color=COLOURS[2], capsize=3, markersize=4, label=label)
        axis.set(xlabel="step", ylabel="success [%]", ylim=(-2, 102))
        axis.locator_params(axis="x", integer=True)
        axis.legend(loc="lower right")
    return path


def _names(points: list[Point], prefix: str) -> list[str]:
    """What stands behind `prefix`, in the order of first appearance; `loss/loss` first."""
    found = dict.fromkeys(name[len(prefix) :] for point in points for name in point.values if name.startswith(prefix))
    return sorted(found, key=lambda name: name != "loss")


def _draw_curves(points: list[Point], path: Path, wanted: Sequence[tuple[str, str, float]]) -> Path | None:
    curves = [(title, scale, *curve(points, name)) for name, title, scale in wanted]
    curves = [(title, scale, steps, values) for title, scale, steps, values in curves if values]
    if not curves:
        return None
    with picture(path, len(curves), columns=2 if len(curves) in (2, 4) else 3) as axes:
        for axis, (title, scale, steps, values) in zip(axes, curves, strict=True):
            axis.plot(steps, scale * np.array(values), color=COLOURS[0])
            axis.set(title=title, xlabel="step", ylim=(0, None))
            axis.locator_params(axis="x", integer=True)
            axis.ticklabel_format(axis="y", scilimits=(-3, 5))
    return path

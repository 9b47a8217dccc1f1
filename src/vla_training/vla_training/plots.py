"""A number of panels in, a PNG picture in the style of this project out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend must be chosen first)
from matplotlib.axes import Axes  # noqa: E402

DPI = 130
INK, PALE, LIGHT = "#1f2933", "#9aa5b1", "#b9cdf8"
COLOURS = ("#2563eb", "#e4572e", "#0f9d74", "#a855f7", "#d99a06", "#0891b2", "#db2777", "#65a30d")
STYLE = {
    "font.size": 9,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.4,
}


@contextmanager
def picture(path: Path, count: int, columns: int, height: float = 2.3) -> Iterator[list[Axes]]:
    """`count` axes in rows of `columns`, `height` inches each, 10 inches wide; written to `path` after the body."""
    columns = min(columns, count)
    rows = -(-count // columns)
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(
            rows, columns, figsize=(10, rows * height + 0.4), squeeze=False, layout="constrained"
        )
        for axis in grid.flat[count:]:
            axis.remove()
        try:
            yield list(grid.flat[:count])
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=DPI)
        finally:
            pyplot.close(figure)

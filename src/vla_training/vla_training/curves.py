"""Step reports in, losses.csv and a loss curve picture out."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

from vla_training.trainer import StepReport

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend must be chosen first)

WRITE_EVERY = 50
COLUMNS = ("step", "minutes", "kind", "name", "value")


class LossCurves:
    """Means over WRITE_EVERY steps and every validation, appended to OUTPUT/losses.csv."""

    def __init__(self, output: Path, append: bool) -> None:
        self._path = output / "losses.csv"
        self._picture = output / "loss_curve.png"
        self._sums: dict[str, float] = {}
        self._count = 0
        self.last_validation: dict[str, float] = {}
        if not append or not self._path.is_file():
            with self._path.open("w", newline="") as file:
                csv.writer(file).writerow(COLUMNS)

    def add(self, report: StepReport) -> None:
        """Take one step in."""
        for name, value in report.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if self._count == WRITE_EVERY:
            self._write(report, "train", {name: value / self._count for name, value in self._sums.items()})
            self._sums, self._count = {}, 0
        if report.validation:
            self.last_validation = report.validation
            self._write(report, "validation", report.validation)

    def draw(self) -> None:
        """Draw OUTPUT/loss_curve.png from all that was written."""
        curves: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        with self._path.open(newline="") as file:
            for row in csv.DictReader(file):
                steps, values = curves.setdefault((row["name"], row["kind"]), ([], []))
                steps.append(float(row["step"]))
                values.append(float(row["value"]))
        figure, axes = pyplot.subplots(figsize=(8, 5))
        for (name, kind), (steps, values) in sorted(curves.items()):
            axes.plot(
                steps, values, "-" if kind == "train" else "o--", label=f"{name} ({kind})", markersize=3
            )
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        if curves:
            axes.legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(self._picture, dpi=110)
        pyplot.close(figure)

    def _write(self, report: StepReport, kind: str, losses: dict[str, float]) -> None:
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            for name, value in losses.items():
                writer.writerow(
                    (report.progress.step, f"{report.progress.minutes:.2f}", kind, name, f"{value:.6f}")
                )

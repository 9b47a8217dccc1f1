"""A training file or data sets in, the statistics that normalise actions and states out.

`ros2 run vla_training stats config/training/tabletop.yaml --output outputs/statistics.json`
`python -m vla_training.stats config/models/tiny_tabletop.yaml --data outputs/demonstrations --robot tabletop`

They are of the sources with `normalize: target`, of all chosen episodes. `training.statistics` names the file in a run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.normalizer import Normalizer
from vla_policy.resources import find_contract
from vla_training.config import load_training_file
from vla_training.console import refuse
from vla_training.datasets.training_data import open_training_data
from vla_training.watch.facts import results_at, write_json


def table_of(title: str, normalizer: Normalizer, units: Sequence[str] = ()) -> Table:
    """One row a dimension. units: of the dimensions, or none."""
    table = Table("name", "unit", "mean", "std", "1 %", "99 %", "", title=title)
    for number, name in enumerate(normalizer.names):
        low, high = normalizer.low[number], normalizer.high[number]
        values = (normalizer.mean[number], normalizer.std[number], low, high)
        constant = "constant" if high - low < normalizer.min_span else ""
        unit = units[number] if units else ""
        table.add_row(name, unit, *(f"{value:.4g}" for value in values), constant)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="stats", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="config/training/*.yaml or config/models/*.yaml")
    parser.add_argument("--data", type=Path, nargs="+", default=(), help="data sets, instead of the config's")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        file, training = load_training_file(options.config, options.data)
        contract = load_contract(find_contract(options.robot))
        statistics = open_training_data(training.datasets, contract, file.model, seed=training.seed).statistics
        if options.output:
            with results_at(options.output):
                write_json(options.output, statistics.model_dump(mode="json"))
    except VlaError as problem:
        refuse(console, problem)
        return 1
    console.print(
        f"{', '.join(statistics.data)}: {statistics.episodes} episodes, {statistics.rows} action rows, "
        f"key {statistics.key[:12]}",
        highlight=False,
    )
    console.print(table_of("actions", statistics.action, contract.action_units))
    if statistics.state:
        console.print(table_of("state", statistics.state))
    if options.output:
        console.print(str(options.output), markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Points of a run in, a TensorBoard folder or a Weights & Biases run out."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from vla_policy.errors import ConfigError, DataError
from vla_training.watch.config import Wandb
from vla_training.watch.points import Point


class TensorBoard:
    """PointObserver: event files for `tensorboard --logdir FOLDER`."""

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        """resumed_step: what an earlier try wrote of later steps is hidden; 0: a new run."""
        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)

    def add(self, point: Point) -> None:
        """One scalar a value."""
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.step)

    def close(self) -> None:
        """Write what is held back."""
        self._writer.close()


class WandbBoard:
    """PointObserver: a run of Weights & Biases, gone on with when the training is resumed."""

    def __init__(self, config: Wandb, output: Path, facts: Mapping[str, Any], resumed_step: int = 0) -> None:
        """facts: shown as the run's config. Raises: ConfigError where the package is not installed,
        or refuses to begin a run.
        """
        try:
            wandb = import_module("wandb")
        except ImportError:
            raise ConfigError("watch.wandb: the package wandb is not installed; `pip install wandb`, or take "
                              "watch.wandb out: TensorBoard is written anyway") from None
        self._error: type[Exception] = wandb.Error
        try:
            self._run = wandb.init(
                project=config.project,
                name=config.name or output.name,
                mode=config.mode,
                dir=str(output),
                config=dict(facts),
                id=_run_id(output / "watch/wandb_run", resumed_step),
                resume="allow",
            )
        except wandb.Error as problem:
            raise ConfigError(f"watch.wandb: {problem}; set mode: offline, or take watch.wandb out") from None

    def add(self, point: Point) -> None:
        """All values of a point at once. Raises: DataError where wandb does not take them."""
        with self._told():
            self._run.log(dict(point.values), step=point.step)

    def close(self) -> None:
        """Finish the run, so that it is not shown as crashed. Raises: DataError where wandb cannot."""
        with self._told():
            self._run.finish()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of wandb as one of ours."""
        try:
            yield
        except self._error as problem:
            raise DataError(f"wandb: {problem}") from None


def _run_id(path: Path, resumed_step: int) -> str:
    """A resumed training goes on with its run."""
    if resumed_step and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    name = secrets.token_hex(4)
    path.write_text(name, encoding="utf-8")
    return name

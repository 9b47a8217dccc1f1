"""Boards: TensorBoard's files hold every value, also after a resume; Weights & Biases gets what it asks for."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from watched import step

from vla_policy.errors import ConfigError
from vla_training.watch.board import TensorBoard, WandbBoard
from vla_training.watch.config import Wandb, WatchConfig
from vla_training.watch.points import Point
from vla_training.watch.watcher import Watcher


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_holds_every_value(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.add(Point(10, 0.1, {"loss/pose": 0.5, "closed_loop/success": 0.25}))
    board.add(Point(20, 0.2, {"loss/pose": 0.25}))
    board.close()
    assert scalars(tmp_path, "loss/pose") == [(10, 0.5), (20, 0.25)]
    assert scalars(tmp_path, "closed_loop/success") == [(10, 0.25)]


def test_a_resumed_run_shows_each_step_once(tmp_path: Path) -> None:
    for resumed_step, steps in ((0, (10, 20, 30)), (20, (30, 40))):
        board = TensorBoard(tmp_path, resumed_step)
        for number in steps:
            board.add(Point(number, 0.0, {"loss/pose": number + resumed_step / 100}))
        board.close()
    shown = scalars(tmp_path, "loss/pose")
    assert [number for number, _ in shown] == [10, 20, 30, 40]
    assert shown[2][1] == pytest.approx(30.2)


class FakeWandb:
    """Notes the three calls that a board makes; each fails while `broken`."""

    class Error(Exception):
        """As wandb.Error."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.runs: list[dict[str, object]] = []
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished = 0

    def init(self, **settings: object) -> SimpleNamespace:
        self._work()
        self.runs.append(settings)
        return SimpleNamespace(log=self._log, finish=self._finish)

    def _log(self, values: dict[str, float], step: int) -> None:
        self._work()
        self.logged.append((values, step))

    def _finish(self) -> None:
        self._work()
        self.finished += 1

    def _work(self) -> None:
        if self.broken:
            raise self.Error("no API key")


def test_wandb_gets_config_values_and_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    board = WandbBoard(Wandb(project="arm", mode="offline"), tmp_path / "run7", {"config": {"steps": 5}})
    board.add(Point(10, 0.1, {"loss/pose": 0.5}))
    board.close()
    (settings,) = fake.runs
    assert settings["project"] == "arm" and settings["name"] == "run7" and settings["mode"] == "offline"
    assert settings["config"] == {"config": {"steps": 5}} and settings["dir"] == str(tmp_path / "run7")
    assert fake.logged == [({"loss/pose": 0.5}, 10)] and fake.finished == 1


def test_a_resumed_run_goes_on_with_its_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for resumed_step in (0, 20, 0):
        WandbBoard(Wandb(project="arm"), tmp_path, {}, resumed_step)
    first, resumed, anew = (settings["id"] for settings in fake.runs)
    assert first == resumed and anew != first
    assert {settings["resume"] for settings in fake.runs} == {"allow"}


def test_wandb_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # import then fails, whether it is installed or not
    with pytest.raises(ConfigError, match="wandb is not installed; `pip install wandb`, or take watch.wandb out"):
        WandbBoard(Wandb(project="arm"), tmp_path, {})


def test_wandb_that_begins_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(broken=True))
    with pytest.raises(ConfigError, match=r"watch\.wandb: no API key; set mode: offline, or take watch\.wandb out"):
        WandbBoard(Wandb(project="arm"), tmp_path, {})


@pytest.mark.parametrize("values", [2, 0], ids=["while it goes on", "at its end"])
def test_wandb_that_fails_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    fake, console = FakeWandb(), Console(file=io.StringIO(), width=400)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    watcher = Watcher(WatchConfig(every=1, wandb=Wandb(project="arm")), tmp_path, {"config": {}}, console)
    fake.broken = True
    for number in range(1, 1 + values):
        watcher.step(step(number))
    watcher.close()
    assert console.file.getvalue().count("WandbBoard: wandb: no API key") == 1


@pytest.mark.filterwarnings("ignore")
def test_the_genuine_wandb_writes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    board = WandbBoard(Wandb(project="arm", mode="offline"), tmp_path, {"steps": 5})
    board.add(Point(10, 0.1, {"loss/pose": 0.5}))
    board.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))

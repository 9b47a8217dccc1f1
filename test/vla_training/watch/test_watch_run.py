"""A watched run from first step to report: what it keeps, says, measures and leaves behind, whatever goes wrong."""

import base64
import errno
import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fabricated import write_config, write_dataset
from rich.console import Console
from watched import open_loop_result, step, validated

from vla_policy.checkpoint import load_bundle
from vla_policy.errors import ConfigError, DataError
from vla_policy.strict import parse
from vla_training.train import main as train
from vla_training.training.report import RunEnd
from vla_training.watch import watcher as watcher_module
from vla_training.watch.config import WatchConfig
from vla_training.watch.measured import ClosedLoopResult, OpenLoopResult
from vla_training.watch.points import PointFile, curve, read_points
from vla_training.watch.report import main, write_report
from vla_training.watch.watcher import Watcher

FACTS = {"config": {"training": {"learning_rate": 0.00123}}, "command": {"command": "train it <now>"},
         "machine": {"processor": "Abacus 9"}, "data": {"sources": [{"path": "sets/a", "episodes": 17}]}}


def watch(output: Path, console: Console | None = None, **changes: object) -> Watcher:
    return Watcher(WatchConfig(every=2), output, FACTS, console or Console(quiet=True), **changes)


def play(watcher: Watcher, first: int = 1, last: int = 5) -> None:
    for number in range(first, last + 1):
        watcher.step(step(number, loss=1.0 / number))


def end(output: Path, number: int = 5, reason: str = "finished") -> RunEnd:
    return RunEnd(number, 0.1 * number, reason, str(output / "bundle"), None)


def pictures_in(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR) for data in found]


def test_a_run_leaves_points_boards_pictures_and_a_report(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=400)
    watcher = watch(tmp_path, console, open_loop=lambda model: open_loop_result())
    play(watcher)
    details = watcher.validation(validated(5, loss=0.3), object())
    assert details["open_loop/error/x"] == pytest.approx(0.015)
    watcher.end(end(tmp_path))
    points = read_points(tmp_path / "watch/points.csv")
    assert curve(points, "loss/loss") == ([2, 4, 5], pytest.approx([0.75, 7 / 24, 0.2]))
    assert curve(points, "validation/loss") == ([5], [0.3])
    assert curve(points, "open_loop/error/y") == ([5], pytest.approx([0.025]))
    assert list((tmp_path / "tensorboard").glob("events*"))
    said = console.file.getvalue()
    assert "step 5: held out: pose 0.15  loss 0.3  action error 6 % of the spread  (best)" in said
    assert said.splitlines()[-1] == (f"finished after 5 steps, 0.5 minutes: bundle in {tmp_path / 'bundle'}, report in "
                                     f"{tmp_path / 'report.html'}")
    names = {path.stem for path in (tmp_path / "curves").glob("*.png")}
    assert names == {"losses", "learning_rate", "action_error", "action_error_over_time", "trajectory_0", "speed"}


def test_the_report_holds_the_values_and_opens_without_network(tmp_path: Path) -> None:
    watcher = watch(tmp_path, open_loop=lambda model: open_loop_result())
    play(watcher)
    watcher.validation(validated(5, loss=0.3), object())
    watcher.end(end(tmp_path))
    html = (tmp_path / "report.html").read_text()
    for words in ("finished after 5 steps", "0.3", "best 0.2 at step 5", "Abacus 9", "train it &lt;now&gt;",
                  "learning_rate: 0.00123", "sources.0.episodes", ">17<", "open the drawer (set, episode 5)",
                  "<td>gripper</td><td>fraction</td><td>0.035</td><td>0</td><td>-</td>"):
        assert words in html, words
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script", html), "something would be fetched"
    assert len(pictures_in(html)) == 6 and all(picture.std() > 1 for picture in pictures_in(html))


def test_a_run_under_way_has_a_report_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = watch(tmp_path)
    play(watcher)
    assert main([str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "under way" in (tmp_path / "report.html").read_text()
    watcher.close()
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "expected the output folder of a training run" in " ".join(capsys.readouterr().out.split())


def test_a_run_without_a_step_has_a_report(tmp_path: Path) -> None:
    watcher = watch(tmp_path)
    watcher.end(end(tmp_path, number=0, reason="stopped"))
    assert "stopped by a signal after 0 steps" in (tmp_path / "report.html").read_text()


def test_a_resumed_run_goes_on_and_a_new_one_begins_anew(tmp_path: Path) -> None:
    watcher = watch(tmp_path, open_loop=lambda model: open_loop_result())
    play(watcher, 1, 6)
    watcher.validation(validated(6, loss=0.3), object())
    watcher.close()
    resumed = watch(tmp_path, resumed_step=4)
    play(resumed, 5, 8)
    resumed.close()
    assert curve(read_points(tmp_path / "watch/points.csv"), "loss/loss")[0] == [2, 4, 6, 8]
    assert (tmp_path / "watch/open_loop.npz").is_file()
    watch(tmp_path).close()
    assert read_points(tmp_path / "watch/points.csv") == []
    assert not (tmp_path / "watch/open_loop.npz").exists()


@pytest.mark.parametrize(
    "problem", [DataError("a.mp4: truncated"), torch.OutOfMemoryError("CUDA out of memory")], ids=["data", "memory"]
)
def test_an_open_loop_that_fails_is_said_once_and_left_out(tmp_path: Path, problem: Exception) -> None:
    calls: list[object] = []

    def broken(model: object) -> OpenLoopResult:
        calls.append(model)
        raise problem

    console = Console(file=io.StringIO(), width=400)
    watcher = watch(tmp_path, console, open_loop=broken)
    assert watcher.validation(validated(1, 0.5), object()) == {}
    assert watcher.validation(validated(2, 0.4), object()) == {}
    watcher.close()
    assert len(calls) == 1 and console.file.getvalue().count(f"{problem}; it is left out from here on") == 1
    assert curve(read_points(tmp_path / "watch/points.csv"), "validation/loss") == ([1, 2], [0.5, 0.4])


def test_the_model_of_another_process_is_not_measured(tmp_path: Path) -> None:
    watcher = watch(tmp_path, open_loop=lambda model: pytest.fail("there is no model"))
    assert watcher.validation(validated(1, 0.5), None) == {}
    watcher.close()


def test_a_full_disk_costs_the_curves_and_the_report_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    console = Console(file=io.StringIO(), width=400)
    watcher = watch(tmp_path, console)
    monkeypatch.setattr(PointFile, "add", full)
    monkeypatch.setattr("vla_training.watch.report.write_page", full)
    play(watcher, 1, 6)
    watcher.end(end(tmp_path))
    said = console.file.getvalue()
    assert said.count("PointFile: [Errno 28] No space left on device; it is left out from here on") == 1
    assert said.splitlines()[-1].endswith("/bundle, no report: [Errno 28] No space left on device")


class Player:
    """Stands for the closed loop: a result for step 4 comes at step 6, one for the last step at the end."""

    made: list["Player"] = []

    def __init__(self, config: object, folder: Path, say: object, resumed_step: int) -> None:
        self.folder, self.offered, self.ended = folder, [], 0
        self.results = [None, None, self.result(4)]
        Player.made.append(self)

    def result(self, number: int) -> ClosedLoopResult:
        tasks = [{"task": "push", "successes": number, "episodes": 8}]
        summary = {"success_rate": number / 8, "interval_95": [0.1, 0.9], "episodes": 8, "tasks": tasks}
        path = self.folder / f"step_{number:07d}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(summary))
        return ClosedLoopResult.read(number, "tabletop", path)

    def offer(self, number: int, bundle: Path, last: bool = False) -> None:
        self.offered.append((number, last))

    def poll(self) -> ClosedLoopResult | None:
        return self.results.pop(0) if self.results else None

    def finish(self, stop: object) -> ClosedLoopResult | None:
        return self.result(8) if (8, True) in self.offered else None

    def close(self) -> None:
        self.ended += 1


def test_success_over_time_reaches_boards_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "ClosedLoopRunner", Player)
    config = parse(WatchConfig, {"every": 2, "closed_loop": {"sim": "tabletop", "every": 4}}, "watch", ConfigError)
    console = Console(file=io.StringIO(), width=400)
    watcher = Watcher(config, tmp_path, FACTS, console)
    play(watcher, 1, 4)
    watcher.exported(4, tmp_path / "bundle")
    play(watcher, 5, 8)
    watcher.end(end(tmp_path, number=8))
    player = Player.made[-1]
    assert player.offered == [(4, False), (8, True)] and player.ended
    assert curve(read_points(tmp_path / "watch/points.csv"), "closed_loop/success") == ([6, 8], [0.5, 1.0])
    assert "step 4: 50 % success in tabletop (10 to 90 %, 8 episodes)" in console.file.getvalue()
    html = (tmp_path / "report.html").read_text()
    assert "<th>step 4</th><th>step 8</th>" in html and "<td>push</td><td>4/8</td><td>8/8</td>" in html
    assert (tmp_path / "curves/success.png").is_file()


def test_a_run_that_was_stopped_does_not_wait_for_another_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "ClosedLoopRunner", Player)
    config = WatchConfig.model_validate({"closed_loop": {"sim": "tabletop", "every": 4}})
    watcher = Watcher(config, tmp_path, FACTS, Console(quiet=True))
    watcher.end(end(tmp_path, number=8, reason="stopped"))
    assert Player.made[-1].offered == []


def test_a_simulator_that_is_not_there_is_refused_with_nothing_written(tmp_path: Path) -> None:
    config = WatchConfig.model_validate({"closed_loop": {"sim": "nowhere", "every": 4}})
    with pytest.raises(ConfigError, match="got 'nowhere'"):
        Watcher(config, tmp_path / "run", FACTS, Console(quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"evry": 3}, "unknown key 'evry'; did you mean 'every'"),
    ({"wandb": {"projct": "a"}}, "unknown key 'wandb.projct'; did you mean 'project'"),
    ({"wandb": {"project": "a", "mode": "of"}}, "wandb.mode: got 'of'"),
    ({"closed_loop": {"sim": "tabletop"}}, "closed_loop.every' is missing"),
    ({"closed_loop": {"sim": "a", "every": 5, "episodes": 1, "tasks": ["b", "c"]}}, "at least one episode a task"),
    ({"open_loop": {"episodes": -1}}, "open_loop.episodes: got -1"),
])
def test_a_wrong_config_is_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(WatchConfig, change, "watch", ConfigError)


def test_facts_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/run.json").write_text("{")
    with pytest.raises(DataError, match="got no JSON"):
        write_report(tmp_path)


def test_watching_changes_nothing_of_what_is_learnt(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set")
    weights = []
    for name, episodes in (("watched", 8), ("unwatched", 0)):
        watch = {"every": 1, "open_loop": {"episodes": episodes}}
        config = write_config(tmp_path / "run.yaml", tmp_path / "set", steps=3, validate_every=1, watch=watch)
        assert train([str(config), "--output", str(tmp_path / name), "--device", "cpu"]) == 0
        assert (tmp_path / name / "watch/open_loop.npz").exists() is bool(episodes)
        weights.append(load_bundle(tmp_path / name / "bundle").model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

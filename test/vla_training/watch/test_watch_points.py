"""Points: means over steps, a CSV file that is read back, and what a resumed run keeps of it."""

from pathlib import Path

import pytest
from watched import step

from vla_policy.errors import DataError
from vla_training.watch.points import Averager, Point, PointFile, curve, read_points


def test_a_point_is_the_mean_of_the_steps_since_the_last() -> None:
    averager = Averager(every=2)
    assert averager.add(step(1, loss=1.0)) is None
    averager.spent(0.25)
    point = averager.add(step(2, loss=3.0, samples=24, wait_share=0.75, seconds=1.5))
    assert point.step == 2
    assert point.values["loss/loss"] == 2.0 and point.values["loss/pose"] == 1.0
    assert point.values["speed/samples_per_s"] == (8 + 24) / (0.5 + 1.5)
    assert point.values["speed/data_wait_share"] == (0.5 * 0.25 + 1.5 * 0.75) / 2.0
    assert point.values["speed/watch_share"] == 0.25 / 2.0
    assert point.values["memory/rss_gib"] > 0
    assert averager.add(step(3, loss=5.0)) is None
    assert averager.take(3, 0.3).values["loss/loss"] == 5.0
    assert averager.take(3, 0.3).values == {}


def test_points_come_back_as_they_were_written(tmp_path: Path) -> None:
    file = PointFile(tmp_path / "watch/points.csv")
    file.add(Point(10, 0.5, {"loss/pose": 0.25, "learning_rate": 1e-4}))
    file.add(Point(20, 1.0, {"loss/pose": 0.125}))
    points = read_points(tmp_path / "watch/points.csv")
    assert points == [Point(10, 0.5, {"loss/pose": 0.25, "learning_rate": 1e-4}), Point(20, 1.0, {"loss/pose": 0.125})]
    assert curve(points, "loss/pose") == ([10, 20], [0.25, 0.125])
    assert curve(points, "learning_rate") == ([10], [1e-4])
    assert read_points(tmp_path / "nothing.csv") == []


def test_a_resumed_run_drops_what_came_after_the_step_it_goes_on_from(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    first = PointFile(path)
    for number in (10, 20, 30):
        first.add(Point(number, 0.0, {"loss/loss": float(number)}))
    PointFile(path, resumed_step=20).add(Point(30, 0.0, {"loss/loss": 99.0}))
    assert curve(read_points(path), "loss/loss") == ([10, 20, 30], [10.0, 20.0, 99.0])
    PointFile(path)
    assert read_points(path) == []


@pytest.mark.parametrize(("text", "message"), [
    ("something else\n", "expected a CSV file with the columns step, minutes, name, value"),
    ("step,minutes,name,value\n1,0.0,loss\n", r"line 2: got \['1', '0.0', 'loss'\]"),
])
def test_another_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_points(tmp_path / "points.csv")

"""The command `bench_loader`: figures of every way to load, next to the naive one; never how fast a machine is."""

import json
from pathlib import Path

import numpy as np
import pytest
from fabricated import write_config, write_dataset

from vla_policy.contract import load_contract
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.resources import find_contract
from vla_training.bench_loader import NaiveWindows, main
from vla_training.config import load_training_file
from vla_training.datasets.config import Augmentation
from vla_training.datasets.training_data import open_training_data
from vla_training.datasets.windows import Draw


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "set")
    return write_config(tmp_path / "run.yaml", tmp_path / "set")


def test_figures_of_every_way(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    asked = ["--batches", "2", "--batch-size", "2", "--step-ms", "1", "--long", "4", "--output", str(output)]
    assert main([str(config), *asked]) == 0
    (figures,) = json.loads(output.read_text())
    assert {"frames used", "every frame", "decoded before"} <= {one["way"] for one in figures["speeds"]}
    assert all(one["samples_per_s"] > 0 for one in figures["speeds"])
    assert all(0 <= one["wait_share"] <= 1 for one in figures["speeds"] if one["wait_share"] is not None)
    assert {cache: len(held) for cache, held in figures["memory_mb"].items()} == {"none": 3, "decoded": 3}
    assert "every frame" in capsys.readouterr().out


def test_mistakes_end_in_one_line(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(config), "--data", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in " ".join(capsys.readouterr().out.split())


def test_the_naive_way_gives_the_same_windows_out_of_more_frames(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, training = load_training_file(config)
    data = open_training_data(training.datasets, load_contract(find_contract("tabletop")), file.model)
    words = Tokenizer.build(data.instructions)
    lean, naive = (
        data.train(words, data.statistics.normalizers, Augmentation(), **kind) for kind in ({}, {"kind": NaiveWindows})
    )
    draws = [Draw(0, slot, 2) for slot in range(4)]
    assert np.array_equal(lean.__getitems__(draws).images_BWVSS3, naive.__getitems__(draws).images_BWVSS3)
    reader = data.sources[0].data
    asked: list[int] = []
    whole = type(reader).images
    monkeypatch.setattr(
        type(reader),
        "images",
        lambda own, episode, camera, frames: asked.append(len(frames)) or whole(own, episode, camera, frames),
    )
    longest = next(draw for draw in (Draw(1, slot, 2) for slot in range(99)) if lean.window(draw).start < 5)
    lean.__getitems__([longest])
    used = asked.copy()
    naive.__getitems__([longest])
    assert sum(asked[len(used) :]) > sum(used)

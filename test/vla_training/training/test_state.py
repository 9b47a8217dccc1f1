"""The state of a run is written whole or not at all, and read back only where it fits; a full disk costs nothing."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fabricated import IMAGE_SIZE, LENGTHS, ROWS_PER_FRAME, tabletop, write_config, write_dataset, write_shard

from vla_policy.errors import ConfigError, VlaError
from vla_training.datasets.lerobot import finalize
from vla_training.tabletop.demonstrator import features
from vla_training.train import Run, main
from vla_training.training import state

TENSORS = {"weights/a": torch.arange(12.0).reshape(3, 4), "optimizer/a/step": torch.tensor(5.0)}


def write(folder: Path, step: int) -> None:
    partial = state.partial_of(folder)
    state.make_empty(partial)
    state.write_tensors(partial, {name: value + step for name, value in TENSORS.items()}, alone=True)
    state.commit(folder, {"step": step})


def read(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    place, progress = state.find(folder)
    tensors = {name: torch.zeros_like(value) for name, value in TENSORS.items()}
    state.read_tensors(place, tensors, alone=True)
    return tensors, progress


def test_a_state_comes_back_without_a_pickle(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path / "state", step)
    tensors, progress = read(tmp_path / "state")
    assert progress == {"step": 2} and all(torch.equal(tensors[name], value + 2) for name, value in TENSORS.items())
    assert sorted(path.suffix for path in (tmp_path / "state").iterdir()) == [".json", ".safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("moment", ["while writing", "between the renames"])
def test_a_crash_leaves_the_state_before(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "state", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        whole, done = os.replace, []

        def crash(source: Path, target: Path) -> None:
            done.append(source)
            if len(done) > (moment == "between the renames"):
                raise KeyboardInterrupt
            whole(source, target)

        patch.setattr(os, "replace", crash)
        write(tmp_path / "state", 2)
    assert read(tmp_path / "state")[1] == {"step": 1}
    write(tmp_path / "state", 3)
    assert read(tmp_path / "state")[1] == {"step": 3} and len(list(tmp_path.iterdir())) == 1


def test_renames_that_fail_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "state", 1)

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "replace", stale)
    with pytest.raises(state.StateError, match="could not be written.*Stale file handle"):
        write(tmp_path / "state", 2)
    assert read(tmp_path / "state")[1] == {"step": 1}


def test_nothing_half_written_stays_where_another_process_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "set")
    run = Run(write_config(tmp_path / "run.yaml", tmp_path / "set"), "tabletop", tmp_path / "run", "cpu")
    acted = []

    def other_fails(action: Callable[[], None]) -> None:
        action()
        acted.append(list(tmp_path.glob("run/*.partial/*.safetensors")))
        if acted[-1]:
            raise VlaError("stopped, as 1 of 2 processes failed")

    monkeypatch.setattr(run.stepper, "together", other_fails)
    with pytest.raises(VlaError, match="1 of 2"):
        run.trainer.save(run.state_folder)
    assert acted[-1] and not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize(("change", "message"), [
    ({"seed": 1}, "seed: got 1, expected 0"),
    ({"stages": [], "batch_size": 4}, "stages: got .*'batch_size': 4.*expected .*'until': 0.5"),
    ({"validation_share": 0.5}, "validation_share: got 0.5, expected 0.25"),
    ({"steps": 3}, "steps: got 3, expected 4"),
    ({"max_minutes": 5.0}, "max_minutes: got 5.0, expected None"),
    ({"datasets": ["other"]}, r"data: got .*frames, share 1.0.*expected .*; statistics: got "),
])
def test_another_run_is_not_gone_on_with(change: dict, message: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "set")
    run = Run(write_config(tmp_path / "run.yaml", tmp_path / "set"), "tabletop", tmp_path / "run", "cpu")
    run.trainer.save(run.state_folder)
    if "datasets" in change:
        shard = write_shard(tmp_path / "other", 0, LENGTHS, seed=5)[0]
        finalize(tmp_path / "other", [shard], features(tabletop(), IMAGE_SIZE, ROWS_PER_FRAME), 5.0, "tabletop")
        change = {"datasets": [{"path": str(tmp_path / "other")}]}
    other = Run(write_config(tmp_path / "run.yaml", tmp_path / "set", **change), "tabletop", tmp_path / "run", "cpu")
    with pytest.raises(ConfigError, match=f"the state of another run: .*{message}"):
        other.trainer.resume(run.state_folder)


def test_the_budget_may_grow_and_the_data_may_move(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set")
    run = Run(write_config(tmp_path / "run.yaml", tmp_path / "set"), "tabletop", tmp_path / "run", "cpu")
    run.trainer.save(run.state_folder)
    (tmp_path / "set").rename(tmp_path / "moved")
    config = write_config(tmp_path / "run.yaml", tmp_path / "moved", steps=9)
    Run(config, "tabletop", tmp_path / "run", "cpu").trainer.resume(run.state_folder)


def test_what_is_damaged_or_of_another_model_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "state", 1)
    other = TENSORS | {"weights/a": torch.zeros(3, 5)}
    message = r"another model: 1 weights differ.*weights/a: got \(3, 4\), expected \(3, 5\)"
    with pytest.raises(state.StateError, match=message):
        state.read_tensors(tmp_path / "state", other, alone=True)
    weights = next((tmp_path / "state").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(state.StateError, match="truncated or corrupt"):
        read(tmp_path / "state")
    (tmp_path / "state" / state.PROGRESS).write_text("{")
    with pytest.raises(state.StateError, match="truncated or altered"):
        state.find(tmp_path / "state")
    with pytest.raises(ConfigError, match="nothing to resume"):
        state.find(tmp_path / "nowhere")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk to fill, as only root may mount one: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_state_before_and_nothing_half_written(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "set")
    config = write_config(tmp_path / "run.yaml", tmp_path / "set", validation_share=0.0)
    run = Run(config, "tabletop", small_disk, "cpu")
    run.trainer.save(run.state_folder)
    run.export("bundle")
    before = sorted(small_disk.rglob("*"))
    room = 20_000  # less than the weights need
    (small_disk / "filler").write_bytes(b"0" * (shutil.disk_usage(small_disk).free - room))
    with pytest.raises(state.StateError, match=r"needs .* MB, the disk has 0.0 MB left.*Nothing was written"):
        run.trainer.save(run.state_folder)
    with pytest.raises(state.StateError, match="a policy bundle needs"):
        run.export("bundle")
    monkeypatch.setattr(state, "check_space", lambda *_: None)  # as if the disk filled up after the check
    for action in (lambda: run.trainer.save(run.state_folder), lambda: run.export("bundle")):
        with pytest.raises(state.StateError, match="could not be written"):
            action()
    monkeypatch.undo()
    (small_disk / "filler").unlink()
    assert sorted(small_disk.rglob("*")) == before
    again = Run(config, "tabletop", small_disk, "cpu")
    again.trainer.resume(again.state_folder)
    capsys.readouterr()


def test_a_run_that_cannot_save_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "set")
    config = write_config(tmp_path / "run.yaml", tmp_path / "set", validation_share=0.0, steps=1)
    monkeypatch.setattr(state, "RESERVE", 1e12)
    assert main([str(config), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert "the state of the run needs" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "run/state").exists() and not (tmp_path / "run/bundle").exists()


def test_progress_is_told(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set")
    run = Run(write_config(tmp_path / "run.yaml", tmp_path / "set"), "tabletop", tmp_path / "run", "cpu")
    for _ in zip(range(3), run.trainer.run(), strict=False):  # two steps and a validation
        pass
    run.trainer.save(run.state_folder)
    told = json.loads((run.state_folder / state.PROGRESS).read_text())
    assert told["step"] == told["averages"] == 2 and told["best"] > 0 and told["scaler"] is None

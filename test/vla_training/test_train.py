"""Training on a CPU: two steps, resume, infer, the same bits as without the break; mistakes are named."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated import tabletop, write_config, write_dataset
from rich.console import Console

from vla_policy.checkpoint import load_bundle
from vla_policy.errors import ConfigError
from vla_policy.policy import Policy
from vla_policy.types import Observation, Pose
from vla_training.config import load_training_file
from vla_training.train import Run, main, train
from vla_training.trainer import StepReport, Trainer

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    write_dataset(root)
    return root


def run_of(config: Path, output: Path) -> Run:
    return Run(config, "tabletop", output, torch.device("cpu"))


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C be pressed after some steps."""
    whole = Trainer.run

    def interrupted(trainer: Trainer) -> Iterator[StepReport]:
        for report in whole(trainer):
            if report.progress.step == steps:
                os.kill(os.getpid(), signal.SIGINT)
            yield report

    monkeypatch.setattr(Trainer, "run", interrupted)


def chunk_of(bundle: Path) -> np.ndarray:
    policy = Policy.load(bundle, device="cpu")
    policy.reset("open the drawer")
    image = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    pose = Pose(np.array([0.4, 0.0, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]))
    return policy.step(Observation(0, {"static": image, "wrist": image}, np.zeros(8), pose)).values


def test_two_steps_resume_and_infer_equal_an_uninterrupted_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "run.yaml", dataset)
    train(run_of(config, tmp_path / "whole"), resume=False, console=QUIET)
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        train(run_of(config, tmp_path / "broken"), resume=False, console=QUIET)
    assert load_bundle(tmp_path / "broken/bundle").provenance["steps"] == 2
    broken = run_of(config, tmp_path / "broken")
    train(broken, resume=True, console=QUIET)
    assert broken.trainer.progress.step == 4
    whole_weights, resumed_weights = (
        load_bundle(tmp_path / name / "bundle").model.state_dict() for name in ("whole", "broken")
    )
    assert all(torch.equal(value, resumed_weights[name]) for name, value in whole_weights.items())
    assert np.array_equal(chunk_of(tmp_path / "whole/bundle"), chunk_of(tmp_path / "broken/bundle"))


def test_training_lowers_the_loss(dataset: Path, tmp_path: Path) -> None:
    stages = [{"until": 1.0, "window": 4, "batch_size": 4}]
    run = run_of(
        write_config(
            tmp_path / "run.yaml", dataset, steps=80, learning_rate=5e-3, stages=stages, validation_share=0.0
        ),
        tmp_path / "run",
    )
    losses = [report.losses["loss"] for report in run.trainer.run()]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_a_run_leaves_curves_and_provenance(dataset: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", dataset)
    assert main([str(config), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert (tmp_path / "run/loss_curve.png").stat().st_size > 1000
    assert "validation,pose" in (tmp_path / "run/losses.csv").read_text()
    facts = load_bundle(tmp_path / "run/bundle").provenance
    assert facts["steps"] == 4 and facts["episodes"] == 4 and facts["seed"] == 0


def test_a_run_can_start_from_a_bundle(dataset: Path, tmp_path: Path) -> None:
    train(
        run_of(write_config(tmp_path / "first.yaml", dataset), tmp_path / "first"),
        resume=False,
        console=QUIET,
    )
    bundle = load_bundle(tmp_path / "first/bundle")
    second = run_of(
        write_config(tmp_path / "second.yaml", dataset, start=str(tmp_path / "first/bundle")),
        tmp_path / "second",
    )
    assert all(
        torch.equal(value, second.trainer.model.state_dict()[name])
        for name, value in bundle.model.state_dict().items()
    )
    assert second.start.action_normalizer == bundle.action_normalizer


def test_a_bundle_of_another_model_is_refused(dataset: Path, tmp_path: Path) -> None:
    train(
        run_of(write_config(tmp_path / "first.yaml", dataset), tmp_path / "first"),
        resume=False,
        console=QUIET,
    )
    config = write_config(tmp_path / "second.yaml", dataset, start=str(tmp_path / "first/bundle"))
    config.write_text(config.read_text().replace("history_length: 4", "history_length: 5"))
    with pytest.raises(ConfigError, match="history_length: got 4, expected 5"):
        run_of(config, tmp_path / "second")


def test_resuming_nothing_is_refused(dataset: Path, tmp_path: Path) -> None:
    run = run_of(write_config(tmp_path / "run.yaml", dataset), tmp_path / "run")
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(run, resume=True, console=QUIET)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rat": 1e-3}, "unknown key 'learning_rat'; did you mean 'learning_rate'"),
        ({"steps": 0}, "steps: got 0"),
        (
            {"stages": [{"until": 0.5, "window": 1, "batch_size": 2}]},
            "expected growing shares of the budget ending at 1.0",
        ),
        ({"scenes": "somewhere"}, "give both for the side task, or neither"),
    ],
)
def test_a_wrong_config_is_refused_by_name(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_training_file(write_config(tmp_path / "run.yaml", tmp_path, **change))


def test_a_missing_dataset_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "run.yaml", tmp_path / "nowhere")
    assert main([str(config), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert "no meta/info.json" in capsys.readouterr().out.replace("\n", "")


def test_the_shipped_config_loads() -> None:
    file, training = load_training_file(Path(__file__).resolve().parents[2] / "config/training/tabletop.yaml")
    assert training.stages[-1].window == file.model.history_length
    assert set(file.model.cameras) <= set(tabletop().cameras)

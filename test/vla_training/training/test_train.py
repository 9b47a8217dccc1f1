"""Training on a CPU: two steps, resume, infer, the same bits as without the break; mistakes are named."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fabricated import CONFIG, tabletop, write_config, write_dataset
from rich.console import Console

from vla_policy.checkpoint import load_bundle
from vla_policy.errors import ConfigError
from vla_policy.policy import Policy
from vla_policy.types import Observation, Pose
from vla_training.config import load_training_file
from vla_training.train import Run, main, train
from vla_training.training.report import StepReport
from vla_training.training.stepper import Stepper

QUIET = Console(quiet=True)
TWIN = {"weights": "random-tiny"}
# What three kinds of model say in a model file; all else is shared.
KINDS = {
    "discrete": {"formulation": "one_step", "action_head": "discrete", "history_length": 1},
    "twin": {"backbone": "kosmos", "backbone_options": TWIN, "head_options": {"hidden_size": 8}},
    "flow": {"action_head": "flow", "head_options": {"width": 16, "denoiser_size": 32}},
}
SEED_SCHEMA = {
    "model": {"backbone": "kosmos", "action_head": "lstm", "history_length": 16, "action_chunk_size": 10},
    "training": {"batch_size": 128, "learning_rate": 1e-4, "epochs": 5, "warmup_ratio": 0.25},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    write_dataset(root)
    return root


def run_of(config: Path, output: Path) -> Run:
    return Run(config, "tabletop", output, "cpu")


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Let a signal come in a step, Ctrl-C by default."""
    whole, seen = Stepper.optimize, []

    def interrupted(stepper: Stepper, *inputs: object) -> object:
        seen.append(1)
        if len(seen) == steps:
            os.kill(os.getpid(), number)
        return whole(stepper, *inputs)

    monkeypatch.setattr(Stepper, "optimize", interrupted)


def step_reports(run: Run) -> list[StepReport]:
    """A whole run."""
    return [report for report in run.trainer.run() if isinstance(report, StepReport)]


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


def test_a_checkpoint_holds_the_validation_of_its_step(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate at which nothing is learnt, the first validation stays the best."""
    config = write_config(tmp_path / "run.yaml", dataset, steps=6, export_every=3, validate_every=3,
                          learning_rate=1e-12)
    whole = run_of(config, tmp_path / "whole")
    train(whole, resume=False, console=QUIET)
    optimize, seen = Stepper.optimize, []

    def killed(stepper: Stepper, *inputs: object) -> object:
        seen.append(1)
        if len(seen) == 4:
            raise SystemExit
        return optimize(stepper, *inputs)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Stepper, "optimize", killed)
        train(run_of(config, tmp_path / "broken"), resume=False, console=QUIET)
    broken = run_of(config, tmp_path / "broken")
    broken.trainer.resume(broken.state_folder)
    assert broken.trainer.progress.step == 3 and broken.bundle(broken.start.model).provenance["validation"]
    train(broken, resume=True, console=QUIET)
    one, other = whole.trainer.progress, broken.trainer.progress
    assert one.stale == 1
    assert (one.best, one.stale, one.validation) == (other.best, other.stale, other.validation)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_model_trains_resumes_and_acts(
    kind: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"image_size": 32, "text_length": 8, "history_length": 2, "action_chunk_size": 4}
    training = {"batch_size": 4, "steps": 2, "precision": "fp32", "threads": 1, "validation_share": 0.25}
    training |= {"validate_every": 1, "losses": {"grounding_weight": 0.5}}
    config = tmp_path / "model.json"
    config.write_text(json.dumps({"model": shared | KINDS[kind], "training": training}))

    def command(output: str, *more: str) -> int:
        return main([str(config), "--data", str(dataset), "--output", str(tmp_path / output), "--device", "cpu", *more])

    assert command("whole") == 0
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        assert command("broken") == 0
    assert load_bundle(tmp_path / "broken/bundle").provenance["steps"] == 1
    assert command("broken", "--resume") == 0
    bundles = [load_bundle(tmp_path / name / "bundle") for name in ("whole", "broken")]
    assert [bundle.provenance["steps"] for bundle in bundles] == [2, 2]
    assert {"bins" if kind == "discrete" else "pose", "place"} <= set(bundles[0].provenance["validation"])
    whole, resumed = (bundle.model.state_dict() for bundle in bundles)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    chunk = chunk_of(tmp_path / "broken/bundle")
    assert chunk.shape == (4, 7) and np.isfinite(chunk).all()


def test_a_twin_can_start_from_its_bundle(dataset: Path, tmp_path: Path) -> None:
    model = {"image_size": 32, "text_length": 8, "history_length": 2} | KINDS["twin"] | {"proprioception": False}
    training = {"batch_size": 2, "steps": 1, "precision": "fp32", "threads": 1}
    config = tmp_path / "model.json"
    config.write_text(json.dumps({"model": model, "training": training}))
    run = Run(config, "tabletop", tmp_path / "first", "cpu", datasets=[dataset])
    train(run, resume=False, console=QUIET)
    config.write_text(json.dumps({"model": model, "training": training | {"start": str(tmp_path / "first/bundle")}}))
    second = Run(config, "tabletop", tmp_path / "second", "cpu", datasets=[dataset])
    weights = second.stepper.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in run.stepper.average.weights.items())
    assert second.start.normalizers.state is None
    assert np.isfinite(chunk_of(tmp_path / "first/bundle")).all()


def test_the_short_schema_trains(dataset: Path, tmp_path: Path) -> None:
    schema = SEED_SCHEMA | {"model": SEED_SCHEMA["model"] | {"backbone_options": TWIN, "image_size": 32}}
    (tmp_path / "model.json").write_text(json.dumps(schema))
    run = Run(tmp_path / "model.json", "tabletop", tmp_path / "run", "cpu", datasets=[dataset])
    report = next(run.trainer.run())
    assert report.frames == 128 * 16 and np.isfinite(report.losses["loss"])
    assert run.trainer.share_done() == 1 / 5  # 21 frames are one batch an epoch


@pytest.mark.parametrize(
    "path", sorted([*CONFIG.glob("models/*.yaml"), *CONFIG.glob("training/*.yaml")]), ids=lambda path: path.stem
)
def test_every_shipped_file_says_how_to_train(path: Path) -> None:
    file, training = load_training_file(path, ["somewhere"])
    schedule = training.budget(1000, file.model.history_length)
    assert schedule.steps > 0 and schedule.stages[-1].window == file.model.history_length


def test_epochs_are_turned_into_steps(tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", tmp_path, stages=[], steps=None, epochs=3, batch_size=8)
    schedule = load_training_file(config)[1].budget(frames=20, window=4)
    assert schedule.steps == 9
    assert [(stage.window, stage.batch_size) for stage in schedule.stages] == [(4, 8)]


def test_training_lowers_the_loss(dataset: Path, tmp_path: Path) -> None:
    stages = [{"until": 1.0, "window": 4, "batch_size": 4}]
    run = run_of(
        write_config(
            tmp_path / "run.yaml", dataset, steps=80, learning_rate=5e-3, stages=stages, validation_share=0.0
        ),
        tmp_path / "run",
    )
    losses = [report.losses["loss"] for report in step_reports(run)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_a_run_leaves_a_report_and_provenance(dataset: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", dataset)
    assert main([str(config), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert (tmp_path / "run/report.html").stat().st_size > 1000
    assert "validation/pose" in (tmp_path / "run/watch/points.csv").read_text()
    assert load_bundle(tmp_path / "run/best").provenance["steps"] in (2, 4)
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
        torch.equal(value, second.stepper.model.state_dict()[name])
        for name, value in bundle.model.state_dict().items()
    )
    assert second.start.normalizers.action == bundle.action_normalizer
    assert second.facts["statistics"] == bundle.provenance["statistics"]


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


def test_a_new_head_is_put_on_a_bundle(dataset: Path, tmp_path: Path) -> None:
    """All else is the bundle's, weights and normalisers; head and chunk size are the config's, and learn."""
    train(run_of(write_config(tmp_path / "first.yaml", dataset), tmp_path / "first"), resume=False, console=QUIET)
    bundle = load_bundle(tmp_path / "first/bundle")
    config = write_config(tmp_path / "second.yaml", dataset, start=str(tmp_path / "first/bundle"), new_head=True)
    data = yaml.safe_load(config.read_text())
    data["model"] |= {"action_head": "flow", "action_chunk_size": 12, "head_options": {"width": 8, "denoiser_size": 16}}
    config.write_text(yaml.safe_dump(data))
    second = run_of(config, tmp_path / "second")
    kept = {name: value for name, value in bundle.model.state_dict().items() if not name.startswith("head.")}
    weights = second.stepper.model.state_dict()
    assert kept and all(torch.equal(value, weights[name]) for name, value in kept.items())
    assert second.start.normalizers.action == bundle.action_normalizer
    train(second, resume=False, console=QUIET)
    made = load_bundle(tmp_path / "second/bundle")
    assert (made.config.action_head, made.config.action_chunk_size) == ("flow", 12)


def test_a_new_head_on_another_model_or_on_none_is_refused(dataset: Path, tmp_path: Path) -> None:
    train(run_of(write_config(tmp_path / "first.yaml", dataset), tmp_path / "first"), resume=False, console=QUIET)
    start = str(tmp_path / "first/bundle")
    config = write_config(tmp_path / "second.yaml", dataset, start=start, new_head=True)
    config.write_text(config.read_text().replace("history_length: 4", "history_length: 5"))
    with pytest.raises(ConfigError, match="history_length: got 4, expected 5"):
        run_of(config, tmp_path / "second")
    with pytest.raises(ConfigError, match="got new_head without start"):
        run_of(write_config(tmp_path / "third.yaml", dataset, new_head=True), tmp_path / "third")


def test_resuming_nothing_is_refused(dataset: Path, tmp_path: Path) -> None:
    run = run_of(write_config(tmp_path / "run.yaml", dataset), tmp_path / "run")
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(run, resume=True, console=QUIET)


def test_a_new_run_does_not_replace_another(dataset: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", dataset, steps=1)
    train(run_of(config, tmp_path / "run"), resume=False, console=QUIET)
    with pytest.raises(ConfigError, match="there is a run of 1 steps there; add --resume, or choose another --output"):
        train(run_of(config, tmp_path / "run"), resume=False, console=QUIET)


def test_ctrl_c_before_the_first_step_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> Run:
        raise KeyboardInterrupt

    monkeypatch.setattr("vla_training.train.Run", interrupted)
    assert main([str(tmp_path / "run.yaml"), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 130
    assert capsys.readouterr().out == "interrupted before the first step; nothing was trained\n"


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
        ({"batch_size": 8}, "got both batch_size and stages"),
        ({"stages": []}, "got neither batch_size nor stages"),
        ({"epochs": 2}, "got both epochs and steps"),
        ({"steps": None}, "got neither epochs nor steps"),
        ({"steps": None, "epochs": 2}, "got epochs with stages"),
        ({"batch_sice": 8}, "unknown key 'batch_sice'; did you mean 'batch_size'"),
        ({"datasets": []}, "got no dataset to learn from"),
        ({"scenes": "here", "scene_batch_size": 4, "losses": {}}, "scenes with losses.grounding_weight 0"),
    ],
)
def test_a_wrong_config_is_refused_by_name(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_training_file(write_config(tmp_path / "run.yaml", tmp_path, **change))


def test_a_missing_dataset_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "run.yaml", tmp_path / "nowhere")
    assert main([str(config), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert "no such folder; expected a data set" in " ".join(capsys.readouterr().out.split())


def test_the_shipped_config_loads() -> None:
    file, training = load_training_file(CONFIG / "training/tabletop.yaml")
    assert training.stages[-1].window == file.model.history_length
    assert set(file.model.cameras) <= set(tabletop().cameras)

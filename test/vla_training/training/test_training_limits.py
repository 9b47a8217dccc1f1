"""What cannot be done, or a config says wrongly, is refused; clipping clips, schedules and early stops are as told."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from fabricated import write_config, write_dataset
from rich.console import Console
from torch import nn

from vla_policy.errors import ConfigError
from vla_training.config import TrainingConfig, load_training_file
from vla_training.train import Run, train
from vla_training.training import machine, signals
from vla_training.training.feed import Share
from vla_training.training.optimization import AveragedWeights, learning_rate_at, make_optimizer
from vla_training.training.report import StepReport, ValidationReport

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    write_dataset(root)
    return root


def run_of(folder: Path, dataset: Path, **training: object) -> Run:
    return Run(write_config(folder / "run.yaml", dataset, **training), "tabletop", folder / "run", "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "fp8"}, "precision: got 'fp8'"),
        ({"schedule": "linear"}, "schedule: got 'linear'"),
        ({"parallel": "fsdp"}, "parallel: got 'fsdp'"),
        ({"parallel": "fsdp2", "precision": "fp16"}, "got precision fp16 with parallel fsdp2"),
        ({"parallel": "fsdp2", "deepspeed": "x.json"}, "got deepspeed with parallel fsdp2"),
        ({"patience": 3, "validation_share": 0.0}, "got patience 3 with validation_share 0"),
        ({"accumulation_step": 2}, "unknown key 'accumulation_step'; did you mean 'accumulation_steps'"),
        ({"start": "run/bundle", "statistics": "s.json"}, "start is 'run/bundle' and statistics is 's.json'"),
        ({"ema_decay": 1.0}, "ema_decay: got 1.0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_training_file(write_config(tmp_path / "run.yaml", tmp_path, **change))


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("gpu", "bf16", "--device: got 'gpu'; did you mean 'cpu'"),
        ("cuda", "bf16", "--device cuda: no GPU"),
        ("cpu", "fp16", "precision fp16: got a CPU"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    device: str, precision: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        machine.check_device(device, precision)


def test_a_batch_that_does_not_divide_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: got 4 for 1 processes with 3 micro batches each.*use 6"):
        run_of(tmp_path, dataset, accumulation_steps=3)
    with pytest.raises(ConfigError, match="scene_batch_size: got 3 for 2 processes.*use 4"):
        machine.check_batches((), TrainingConfig(batch_size=4, steps=1, scenes="x", scene_batch_size=3,
                                                 losses={"grounding_weight": 1.0}), 2)


def test_slots_are_dealt_without_gap_or_overlap() -> None:
    dealt = [slot for rank in range(3) for piece in range(2) for slot in Share(rank, 3, 2).slots(12, piece)]
    assert dealt == list(range(12))


def test_one_process_cannot_split_weights(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="parallel fsdp2: got one process.*torchrun"):
        run_of(tmp_path, dataset, parallel="fsdp2")


@pytest.mark.parametrize(
    ("text", "device", "message"),
    [
        (None, "cuda", "no such file"),
        ("{", "cuda", "not JSON"),
        ("{}", "cuda", "no zero_optimization"),
        ('{"zero_optimization": {"stage": 3}}', "cuda", "stage 3, expected 0, 1 or 2.*fsdp2"),
        ('{"zero_optimization": {"stage": 2}}', "cpu", "got --device cpu, expected GPUs"),
        ('{"zero_optimization": {"stage": 2}}', "cuda", "the package is not installed"),
    ],
)
def test_deepspeed_is_refused_where_it_cannot_run(
    text: str | None, device: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda _: None)
    if text is not None:
        (tmp_path / "deepspeed.json").write_text(text)
    config = TrainingConfig(batch_size=4, steps=1, deepspeed=str(tmp_path / "deepspeed.json"))
    with pytest.raises(ConfigError, match=message):
        machine.deepspeed_plugin(config, device)


def test_a_deepspeed_file_becomes_accelerates_plugin() -> None:
    config = TrainingConfig(batch_size=4, steps=1, gradient_clip=0.7, accumulation_steps=2)
    plugin = machine.plugin_of({"zero_optimization": {"stage": 1}, "gradient_clipping": 9.0}, config)
    assert (plugin.zero_stage, plugin.gradient_clipping, plugin.gradient_accumulation_steps) == (1, 0.7, 2)


@pytest.mark.parametrize("pieces", [1, 2])
def test_clipping_clips(pieces: int, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm of what the optimizer sees; a second step would show gradients that were not cleared."""
    stages = [{"until": 1.0, "window": 4, "batch_size": 4}]
    run = run_of(tmp_path, dataset, stages=stages, gradient_clip=0.01, accumulation_steps=pieces)
    norms, step = [], run.stepper.optimizer.step

    def seen() -> None:
        gradients = [weight.grad for weight in run.stepper.model.parameters() if weight.grad is not None]
        norms.append(float(nn.utils.get_total_norm(gradients)))
        step()

    monkeypatch.setattr(run.stepper.optimizer, "step", seen)
    steps = run.trainer.run()
    reports = [next(steps) for _ in range(2)]
    assert all(norm == pytest.approx(0.01, rel=1e-3) for norm in norms)
    assert all(report.gradient_norm > 0.02 for report in reports)


def test_the_learning_rate_follows_its_schedule() -> None:
    cosine = [learning_rate_at(share, 1.0, 0.2, 0.1) for share in (0.1, 0.2, 0.6, 1.0)]
    assert cosine == pytest.approx([0.5, 1.0, 0.55, 0.1])
    assert [learning_rate_at(share, 1.0, 0.2, 0.1, "constant") for share in (0.1, 0.2, 1.0)] == [0.5, 1.0, 1.0]


def test_averages_and_moments_are_of_what_is_trained_only() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    average = AveragedWeights(model, 0.999)
    before = model[1].weight.detach().clone()
    assert set(average.weights) == {"1.weight", "1.bias"}
    optimizer = make_optimizer(model, 0.1, 0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]
    with torch.no_grad():
        model[1].weight += 1.0
    average.update(model)
    now = model[1].weight.detach().clone()
    with average.applied(model):
        torch.testing.assert_close(model[1].weight, before + 9 / 11)  # the decay warms up: (1 + 1) / (10 + 1)
    assert torch.equal(model[1].weight, now)


def test_a_run_without_averages_exports_its_newest_weights(dataset: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, dataset, ema_decay=None, steps=2)
    train(run, resume=False, console=QUIET)
    assert run.stepper.average is None
    again = run_of(tmp_path, dataset, ema_decay=None, steps=2)
    again.trainer.resume(again.state_folder)
    weights = run.stepper.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.stepper.model.state_dict().items())


def test_a_run_without_progress_ends_early(dataset: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, dataset, steps=40, validate_every=1, patience=2, learning_rate=1e-12)
    stale = [report.improved for report in run.trainer.run() if isinstance(report, ValidationReport)]
    assert run.trainer.end_reason == "no_improvement" and run.trainer.progress.step < 40
    assert stale[-2:] == [False, False] and stale[0]


def test_reports_say_what_a_step_was(dataset: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, dataset, steps=8, schedule="constant", warmup_ratio=0.0)
    reports = [report for report in run.trainer.run() if isinstance(report, StepReport)]
    assert [report.step for report in reports] == list(range(1, 9)) and reports[-1].share_done == 1.0
    assert [(report.samples, report.frames) for report in reports] == [(4, 4)] * 4 + [(2, 8)] * 4
    assert all(report.learning_rate == 1e-3 and 0 <= report.wait_share <= 1 for report in reports)
    assert {"pose", "gripper", "place", "loss"} == set(reports[0].losses)


def test_the_launchers_echo_of_ctrl_c_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(signals, "_end_at_once", left.append)
    monkeypatch.setattr(signals, "ECHO_S", 3600.0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with signals.stop_on_signal() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop and stop.signal == signal.SIGINT and not left
    monkeypatch.setattr(signals, "ECHO_S", 0.0)
    with signals.stop_on_signal():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert left == [130]
    assert signal.getsignal(signal.SIGINT) is not stop.hear


def test_the_second_ctrl_c_of_a_single_process_ends_it_and_its_children_at_once() -> None:
    script = """if True:
        import os, signal, subprocess
        from vla_training.training.signals import stop_on_signal
        player = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print(player.pid, flush=True)
        with stop_on_signal():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
    """
    alone = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", signals.BY_LAUNCHER)}
    ended = subprocess.run([sys.executable, "-c", script], env=alone | {"PYTHONPATH": os.pathsep.join(sys.path)},
                           stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    assert ended.returncode == 130
    psutil.wait_procs(player := [one for one in psutil.process_iter() if one.pid == int(ended.stdout)], timeout=10)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in player)


def test_sigterm_saves(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, dataset, steps=4)
    optimize = run.stepper.optimize

    def told(*inputs: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return optimize(*inputs)

    monkeypatch.setattr(run.stepper, "optimize", told)
    train(run, resume=False, console=QUIET)
    assert run.trainer.end_reason == "stopped"
    assert json.loads((run.state_folder / "progress.json").read_text())["step"] == 1

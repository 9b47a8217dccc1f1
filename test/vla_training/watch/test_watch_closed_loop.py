"""Closed loop: a process of its own plays the bundle; it is bounded, says when it fails, and ends with the run."""

import json
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from policies import bundle

from vla_policy.checkpoint import save_bundle
from vla_policy.errors import ConfigError
from vla_training.watch.closed_loop import ClosedLoopRunner, check_closed_loop
from vla_training.watch.config import ClosedLoop
from vla_training.watch.measured import ClosedLoopResult

pytestmark = pytest.mark.timeout(600)  # fresh processes on a loaded machine
SUMMARY = {"success_rate": 0.75, "episodes": 4, "interval_95": [0.3, 0.95],
           "tasks": [{"task": "open_drawer", "successes": 3, "episodes": 4}]}
RESULT = f"from pathlib import Path; Path(argument('--json')).write_text({json.dumps(json.dumps(SUMMARY))})"


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of sim_bridges.evaluate, for processes that start from here on."""

    def write(body: str) -> None:
        package = tmp_path / "stand_in/sim_bridges"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        head = "import sys, os, time\nargument = lambda name: sys.argv[sys.argv.index(name) + 1]\n"
        (package / "evaluate.py").write_text(head + textwrap.dedent(body))
        monkeypatch.syspath_prepend(str(tmp_path / "stand_in"))

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle, as far as copying goes."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/contract.yaml").write_text("name: tabletop")
    return tmp_path


def config(**changes: object) -> ClosedLoop:
    return ClosedLoop(**({"sim": "tabletop", "every": 10, "episodes": 4, "patience_s": 60.0} | changes))


def wait(runner: ClosedLoopRunner) -> ClosedLoopResult | None:
    return runner.finish(lambda: False)


def test_a_bundle_is_played_beside_the_training(folder: Path, evaluate: Callable[[str], None]) -> None:
    evaluate(f"""
        assert os.path.isfile(argument('--policy') + '/contract.yaml'), 'the bundle may be replaced while it is played'
        assert argument('--robot') == argument('--policy') + '/contract.yaml'
        assert (argument('--sim'), argument('--tasks'), argument('--episodes')) == ('tabletop', 'open_drawer,push', '4')
        assert os.environ['OMP_NUM_THREADS'] == '1' and os.environ['CUDA_VISIBLE_DEVICES'] == ''
        assert 'RANK' not in os.environ
        {RESULT}
    """)
    said: list[str] = []
    runner = ClosedLoopRunner(config(tasks=("open_drawer", "push")), folder / "closed_loop", said.append)
    runner.offer(5, folder / "bundle")
    assert wait(runner) is None, "it is not due before step 10"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")
        runner.offer(12, folder / "bundle")
    result = wait(runner)
    assert result == ClosedLoopResult(12, "tabletop", 0.75, (0.3, 0.95), 4, {"open_drawer": (3, 4)}), said
    assert result.scalars() == {"closed_loop/success": 0.75, "closed_loop/open_drawer": 0.75}
    runner.offer(19, folder / "bundle")
    assert wait(runner) is None, "the next one is due at step 20"
    assert not list(folder.glob("closed_loop/bundle*"))


def test_the_last_bundle_is_played_unless_it_was(folder: Path, evaluate: Callable[[str], None]) -> None:
    evaluate(RESULT)
    runner = ClosedLoopRunner(config(), folder / "closed_loop", print, resumed_step=15)
    runner.offer(15, folder / "bundle", last=True)
    assert wait(runner) is None, "an earlier try played it"
    runner.offer(16, folder / "bundle", last=True)
    assert wait(runner).step == 16


def test_a_failure_is_said_and_the_training_goes_on(folder: Path, evaluate: Callable[[str], None]) -> None:
    evaluate("sys.exit('no display here')")
    said: list[str] = []
    runner = ClosedLoopRunner(config(), folder / "closed_loop", said.append)
    runner.offer(10, folder / "bundle")
    assert wait(runner) is None
    assert "step 10 gave no result (exit status 1: no display here)" in said[-1] and "step_0000010.log" in said[-1]
    runner.offer(20, folder / "nowhere")
    assert "step 20 was not played" in said[-1] and wait(runner) is None


def test_a_summary_that_is_none_is_said(folder: Path, evaluate: Callable[[str], None]) -> None:
    evaluate("pass")
    said: list[str] = []
    runner = ClosedLoopRunner(config(), folder / "closed_loop", said.append)
    runner.offer(10, folder / "bundle")
    assert wait(runner) is None and "step 10 gave no result" in said[-1]


def test_only_one_is_played_at_a_time_and_none_outlives_the_run(
    folder: Path, evaluate: Callable[[str], None]
) -> None:
    evaluate("time.sleep(600)")
    said, before = [], set(psutil.Process().children())  # tests before this one may have left servers of their own
    runner = ClosedLoopRunner(config(), folder / "closed_loop", said.append)
    runner.offer(10, folder / "bundle")
    (child,) = set(psutil.Process().children()) - before
    assert child.nice() >= 10, "the training goes first"
    runner.offer(20, folder / "bundle")
    assert set(psutil.Process().children()) - before == {child} and runner.poll() is None
    assert runner.finish(lambda: True) is None and "step 10 is left out" in said[-1]
    assert not child.is_running()
    runner.close()


def test_the_wait_for_the_last_one_has_an_end(folder: Path, evaluate: Callable[[str], None]) -> None:
    evaluate("time.sleep(600)")
    before = set(psutil.Process().children())
    runner = ClosedLoopRunner(config(patience_s=0.1), folder / "closed_loop", print)
    runner.offer(10, folder / "bundle")
    begun = time.monotonic()
    assert wait(runner) is None
    assert time.monotonic() - begun < 60 and set(psutil.Process().children()) <= before


def test_a_simulator_that_is_not_there_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="watch.closed_loop.sim: got 'tabeltop'; did you mean 'tabletop'"):
        check_closed_loop(config(sim="tabeltop"))
    check_closed_loop(config())
    monkeypatch.setattr("vla_training.watch.closed_loop.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="sim_bridges is not installed"):
        check_closed_loop(config())


def test_the_genuine_evaluation_plays_a_bundle(tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", bundle())
    said: list[str] = []
    settings = config(tasks=("press_button",), episodes=1, time_limit_s=0.2, patience_s=150.0)
    runner = ClosedLoopRunner(settings, tmp_path / "closed_loop", said.append)
    runner.offer(10, tmp_path / "bundle")
    result = wait(runner)
    assert result is not None, said
    assert result.episodes == 1 and set(result.tasks) == {"press_button"} and 0.0 <= result.success_rate <= 1.0

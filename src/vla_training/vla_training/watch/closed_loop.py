"""Policy bundles in, their success in a simulator out: played in a process of its own while the training goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from vla_policy.checkpoint import CONTRACT
from vla_policy.errors import ConfigError, nearest
from vla_training.watch.config import ClosedLoop
from vla_training.watch.measured import ClosedLoopResult

POLL_S = 0.5
NICENESS = 10  # the training goes first
Say = Callable[[str], None]


def check_closed_loop(config: ClosedLoop) -> None:
    """Refuse before the first step a simulator that is not there. Raises: ConfigError.

    The names of its tasks are known to the simulator alone: a wrong one is told at the first measurement.
    """
    if find_spec("sim_bridges") is None:
        raise ConfigError("watch.closed_loop: the package sim_bridges is not installed; install it "
                          "(`pip install src/sim_bridges`), or take watch.closed_loop out")
    from sim_bridges.registry import SIMS  # only runs with a simulator need it

    if config.sim not in SIMS:
        raise ConfigError(f"watch.closed_loop.sim: got '{config.sim}'; {nearest(config.sim, SIMS)}")


@dataclass(slots=True)
class _Playing:
    step: int
    process: subprocess.Popen[bytes]
    bundle: Path
    summary: Path
    log: Path


class ClosedLoopRunner:
    """Plays one bundle at a time. `offer` starts, `poll` fetches what is done, `finish` waits for the last."""

    def __init__(self, config: ClosedLoop, folder: Path, say: Say, resumed_step: int = 0) -> None:
        """folder: for results and logs. say: takes a line for the person at the terminal."""
        self._config, self._folder, self._say = config, folder, say
        self._played = resumed_step // config.every
        self._last_step = resumed_step
        self._playing: _Playing | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("bundle_*"):  # by a run that was ended at once
            shutil.rmtree(left, ignore_errors=True)

    def offer(self, step: int, bundle: Path, last: bool = False) -> None:
        """Play this bundle if it is due and nothing is being played; returns at once.

        last: it is due unless this very step was played.
        """
        due = step > self._last_step if last else step // self._config.every > self._played
        if not due or self._playing is not None:
            return
        self._played, self._last_step = step // self._config.every, step
        copy = self._folder / f"bundle_{step:07d}"  # the next export replaces the bundle while this one is played
        try:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(bundle, copy)
            self._playing = self._start(step, copy)
        except OSError as problem:
            shutil.rmtree(copy, ignore_errors=True)
            self._say(f"closed loop: step {step} was not played: {problem}; the training goes on")

    def poll(self) -> ClosedLoopResult | None:
        """The result, if one has come since the last call."""
        playing = self._playing
        if playing is None or playing.process.poll() is None:
            return None
        self._playing = None
        shutil.rmtree(playing.bundle, ignore_errors=True)
        try:
            if playing.process.returncode:
                raise ConfigError(f"exit status {playing.process.returncode}: {_last_line(playing.log)}")
            return ClosedLoopResult.read(playing.step, self._config.sim, playing.summary)
        except (ConfigError, KeyError, OSError, ValueError) as problem:
            self._say(f"closed loop: step {playing.step} gave no result ({problem}); see {playing.log}; "
                      "the training goes on")
            return None

    def finish(self, stop: Callable[[], bool]) -> ClosedLoopResult | None:
        """Wait for what is being played, `patience_s` at most and not once `stop` says so; then end it."""
        until_s = time.monotonic() + self._config.patience_s
        if self._playing is not None and not stop():
            self._say(f"closed loop: waiting for step {self._playing.step} to be played; Ctrl-C leaves it out")
        while self._playing is not None:
            result = self.poll()
            if result is not None or self._playing is None:
                return result
            if stop() or time.monotonic() > until_s:
                self._say(f"closed loop: step {self._playing.step} is left out; it was not done")
                self.close()
                return None
            time.sleep(POLL_S)
        return None

    def close(self) -> None:
        """End what is being played; may be called twice."""
        if self._playing is None:
            return
        playing, self._playing = self._playing, None
        playing.process.terminate()
        try:
            playing.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            playing.process.kill()
            playing.process.wait()
        shutil.rmtree(playing.bundle, ignore_errors=True)

    def _start(self, step: int, bundle: Path) -> _Playing:
        config, name = self._config, f"step_{step:07d}"
        summary, log = self._folder / f"{name}.json", self._folder / f"{name}.log"
        command = [
            *(sys.executable, "-m", "sim_bridges.evaluate", "--policy", str(bundle), "--sim", config.sim),
            *("--robot", str(bundle / CONTRACT), "--tasks", ",".join(config.tasks) or "all"),
            *("--episodes", str(config.episodes), "--seed", str(config.seed)),
            *("--time-limit", str(config.time_limit_s), "--json", str(summary)),
        ]
        with log.open("wb") as output:
            # A session of its own: Ctrl-C at the terminal is for the training, which decides what becomes of this.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=_environment(config),
                start_new_session=True,
            )
        with suppress(psutil.Error):  # it may have ended already
            psutil.Process(process.pid).nice(NICENESS)
        return _Playing(step, process, bundle, summary, log)


def _environment(config: ClosedLoop) -> dict[str, str]:
    """This process's, less its place among the processes that train together; the same modules can be imported."""
    inherited = {
        name: value for name, value in os.environ.items()
        if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        and not name.startswith(("TORCHELASTIC_", "ACCELERATE_"))
    }
    inherited["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    inherited["OMP_NUM_THREADS"] = "1"
    if config.device == "cpu":
        inherited["CUDA_VISIBLE_DEVICES"] = ""
    return inherited


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

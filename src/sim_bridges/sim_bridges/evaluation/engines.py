"""Trials in, results out as they end: played in this process, in worker processes, or on a Ray cluster.

A worker that dies costs nothing but time: what it was playing is played again, at most ATTEMPTS times. The results come
in the order in which they end; nothing in them depends on it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from sim_bridges.evaluation.player import Player, PlayerSpec
from sim_bridges.evaluation.trials import Trial, TrialResult
from vla_policy.errors import ConfigError, VlaError

ATTEMPTS = 3
HEAD_S = 5.0  # how long the head of a cluster may take to answer


def play_here(spec: PlayerSpec, trials: Sequence[Trial]) -> Iterator[TrialResult]:
    """One after the other in this process."""
    if not trials:
        return
    player = spec.build()
    try:
        for trial in trials:
            yield player.play(trial)
    finally:
        player.close()


def play_in_processes(spec: PlayerSpec, trials: Sequence[Trial], workers: int) -> Iterator[TrialResult]:
    """In `workers` processes of this machine. Raises: VlaError for a trial that killed its worker ATTEMPTS times."""
    left = {trial.name: trial for trial in trials}
    for _ in range(ATTEMPTS):
        with ProcessPoolExecutor(workers, get_context("spawn"), _Worker.prepare, (spec,)) as pool:
            futures: dict[Future[TrialResult], str] = {
                pool.submit(_Worker.play, trial): name for name, trial in left.items()
            }
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool:  # all that is under way and waiting fails with it
                    continue
                del left[futures[future]]
                yield result
        if not left:
            return
    raise VlaError(
        f"worker processes died {ATTEMPTS} times over {', '.join(sorted(left)[:5])}; is there memory for {workers} "
        "of them? use fewer --workers"
    )


def play_on_ray(spec: PlayerSpec, trials: Sequence[Trial], address: str, workers: int) -> Iterator[TrialResult]:
    """By `workers` actors of a Ray cluster. address: of its head, `auto`, or `local` for one started here.

    Raises: ConfigError without Ray or where no cluster answers, VlaError for a trial that killed its worker ATTEMPTS
    times.
    """
    ray = _ray(address)
    try:
        actor = ray.remote(max_restarts=-1, max_task_retries=ATTEMPTS - 1, num_cpus=1)(_RayWorker)
        actors = [actor.remote(spec) for _ in range(min(workers, len(trials)))]
        waiting, running = list(reversed(trials)), {}
        idle = list(actors)
        while waiting or running:
            while waiting and idle:
                worker, trial = idle.pop(), waiting.pop()
                running[worker.play.remote(trial)] = (worker, trial)
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            worker, trial = running.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayActorError as problem:
                raise VlaError(f"the worker of {trial.name} died {ATTEMPTS} times: {problem}") from None
            except ray.exceptions.RayTaskError as problem:
                raise (
                    problem.cause if isinstance(problem.cause, VlaError) else VlaError(f"{trial.name}: {problem}")
                ) from None
            idle.append(worker)
    finally:
        ray.shutdown()


def _ray(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "--ray: Ray is not installed here; `pip install ray`, or use --workers on one machine"
        ) from None
    _check_head(address)
    here = None if address == "local" else address
    try:
        ray.init(address=here, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise _no_cluster(address, problem) from None
    return ray


def _check_head(address: str) -> None:
    """Ray itself tries for minutes to reach a head that is not there."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), HEAD_S).close()
    except OSError as problem:
        raise _no_cluster(address, problem) from None


def _no_cluster(address: str, problem: Exception) -> ConfigError:
    return ConfigError(
        f"--ray {address}: no Ray cluster answers there ({problem}); start one by `ray start --head`, or say "
        "--ray local"
    )


class _Worker:
    """The player of a worker process; built at its first trial, because a pool hides the errors of a set-up."""

    _spec: PlayerSpec
    _player: Player | None = None

    @classmethod
    def prepare(cls, spec: PlayerSpec) -> None:
        """Keep what `play` needs; nothing is loaded yet."""
        cls._spec, cls._player = spec, None

    @classmethod
    def play(cls, trial: Trial) -> TrialResult:
        """Play a trial; the first call builds the player."""
        if cls._player is None:
            cls._player = cls._spec.build()
        return cls._player.play(trial)


class _RayWorker:
    """The same as an actor."""

    def __init__(self, spec: PlayerSpec) -> None:
        self._spec = spec
        self._player: Player | None = None

    def play(self, trial: Trial) -> TrialResult:
        """Play a trial; the first call builds the player."""
        if self._player is None:
            self._player = self._spec.build()
        return self._player.play(trial)

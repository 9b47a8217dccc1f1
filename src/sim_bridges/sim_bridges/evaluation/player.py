"""A trial in, its result out: sim, policy and guard play it in this process; a film where it failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim_bridges.evaluation.agents import make_policy
from sim_bridges.evaluation.controls import CONTROLS
from sim_bridges.evaluation.trials import CHAIN, Trial, TrialResult
from sim_bridges.media import VideoWriter, compose
from sim_bridges.registry import make_sim
from sim_bridges.results import EpisodeResult
from sim_bridges.rollout import LOCKSTEP, Timing, rollout, rollout_chain
from vla_policy.action.safety import Decision
from vla_policy.contract import RobotContract
from vla_policy.execution import check_execution
from vla_policy.types import NS_PER_S, Observation


@dataclass(frozen=True, slots=True)
class PlayerSpec:
    """All that a player is built from; travels to worker processes.

    time_limit_s: of each instruction, or None: what the sim says. control: of `evaluation.controls`, or None.
    films: folder for films of failures, or None. timing: execution mode and injected delay.
    """

    sim: str
    contract: RobotContract
    policy: str
    time_limit_s: float | None
    control: str | None = None
    films: Path | None = None
    timing: Timing = LOCKSTEP

    def build(self) -> Player:
        """The player; loads the sim and the policy. Raises: VlaError."""
        return Player(self)


class Player:
    """Plays trials one after the other; each depends on nothing but itself."""

    def __init__(self, spec: PlayerSpec) -> None:
        self._spec = spec
        self._sim = make_sim(spec.sim, spec.contract)
        policy = make_policy(spec.policy, spec.sim, self._sim, spec.contract)
        self._policy = policy if spec.control is None else CONTROLS[spec.control](policy)
        check_execution(self._policy, spec.timing.execution)

    def play(self, trial: Trial) -> TrialResult:
        """Play one trial. Raises: VlaError for a task that the sim does not have, or chains that it does not know."""
        spec, film = self._spec, _Film(self._spec.films is not None)
        if trial.task == CHAIN:
            chain = self._sim.draw_chain(trial.seed)
            played = rollout_chain(
                self._sim, self._policy, spec.contract, chain, spec.time_limit_s, film.watch, spec.timing
            )
            result = TrialResult.of_chain(trial, played)
        else:
            episode = rollout(
                self._sim, self._policy, spec.contract, trial.task, trial.seed, spec.time_limit_s, film.watch,
                spec.timing
            )
            result = TrialResult(trial, (episode,))
        if spec.films is not None and not result.episodes[-1].success:
            film.write(spec.films / f"{trial.name.replace('/', '_')}.mp4", result.episodes, self._policy.period_ns)
        return result

    def close(self) -> None:
        """Free the sim."""
        self._sim.close()


class _Film:
    """Keeps what the policy saw in one trial, to write it where the trial failed."""

    def __init__(self, wanted: bool) -> None:
        self.watch = self._add if wanted else None
        self._seen: list[dict[str, NDArray[np.uint8]]] = []

    def write(self, path: Path, episodes: tuple[EpisodeResult, ...], period_ns: int) -> None:
        """An mp4 at the policy's rate, with the last instruction and how it ended."""
        if not self._seen:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        last = episodes[-1]
        with VideoWriter(path, NS_PER_S / period_ns) as video:
            for number, images in enumerate(self._seen):
                video.write(compose(images, last.instruction, f"{number} {last.reason.lower()}"))

    def _add(self, observation: Observation, decision: Decision) -> None:
        if observation.images:
            self._seen.append(dict(observation.images))

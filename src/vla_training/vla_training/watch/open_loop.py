"""A policy and recorded episodes in, how far its actions lie from the recorded ones out.

The policy steps over the recorded observations with `Policy.step`, the function that drives the robot, at the frames
at which it would step there; what it says changes nothing of what it sees next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vla_policy.checkpoint import Bundle
from vla_policy.contract import RobotContract
from vla_policy.errors import DataError
from vla_policy.policy import Policy
from vla_policy.types import NS_PER_S, ActionChunk, Observation
from vla_training.watch.measured import DrawnEpisode, OpenLoopResult

NOISE_SEED = 0  # of what heads draw while they are measured: the same noise every time


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded episode as the robot of a contract would have sent it.

    key: how messages name it. observations: begins an iteration over what was recorded at the steps of the policy.
    actions_NA: float64, contract units and rate; row 0 was meant for the first observation.
    """

    key: str
    instruction: str
    observations: Callable[[], Iterator[Observation]]
    actions_NA: NDArray[np.float64]


class Stepped(Protocol):
    """The part of a Policy that is measured."""

    execute_rows: int

    def reset(self, instruction: str) -> None:
        """Begin an episode."""

    def step(self, observation: Observation) -> ActionChunk:
        """Actions from this observation on."""


def measure(
    policy_for: Callable[[Observation], Stepped],
    recordings: Iterable[Recording],
    contract: RobotContract,
    drawn: int = 0,
) -> OpenLoopResult:
    """Step a policy over recordings and compare.

    policy_for: the policy for an episode that begins with this observation, `replaying` for one. drawn: episodes kept
    whole, the first ones. Raises: DataError where there is no recording, ObservationError and InstructionError for what
    a policy refuses.
    """
    tally, kept, count, execute_rows, step_ms = _Tally(), [], 0, 0, list[float]()
    with _same_noise():
        for recording in recordings:
            chunks_CKA, execute_rows = _replay(policy_for, recording, step_ms)
            tally.add(recording.actions_NA, chunks_CKA, execute_rows)
            if count < drawn:
                kept.append(_keep(recording, chunks_CKA, execute_rows, contract.action_dt_ns))
            count += 1
    if not count:
        raise DataError("open loop: got no recorded episode to compare with; name some")
    return OpenLoopResult(
        names=contract.action_names,
        units=contract.action_units,
        error_KA=tally.error_KA(),
        spread_A=np.concatenate(tally.recorded).std(axis=0),
        execute_rows=execute_rows,
        episodes=count,
        chunks=tally.chunks,
        drawn=tuple(kept),
        step_ms_C=np.array(step_ms),
    )


def replaying(bundle: Bundle, device: str) -> Callable[[Observation], Stepped]:
    """The bundle's policy for an episode, told that its cameras are as large as they were recorded: an image is then
    resized once, as in training and on the robot.
    """

    def policy_for(first: Observation) -> Stepped:
        cameras = dict(bundle.contract.cameras)
        for name, image in first.images.items():
            cameras[name] = cameras[name].model_copy(update={"height": image.shape[0], "width": image.shape[1]})
        return Policy(replace(bundle, contract=bundle.contract.model_copy(update={"cameras": cameras})), device)

    return policy_for


def _replay(
    policy_for: Callable[[Observation], Stepped], recording: Recording, step_ms: list[float]
) -> tuple[NDArray[np.float64], int]:
    """Chunks (C, K, A) of all steps of an episode; rows executed from one to the next. step_ms: grows by each step's
    time.
    """
    policy, chunks = None, []
    for observation in recording.observations():
        if policy is None:
            policy = policy_for(observation)
            policy.reset(recording.instruction)
        began_s = time.perf_counter()
        chunks.append(policy.step(observation).values)
        step_ms.append((time.perf_counter() - began_s) * 1e3)
    if policy is None:
        raise DataError(f"{recording.key}: got no frame, expected at least one; leave the episode out")
    return np.stack(chunks), policy.execute_rows


class _Tally:
    """Sums of absolute errors by row of the chunk and dimension, over the rows that were recorded."""

    def __init__(self) -> None:
        self.recorded: list[NDArray[np.float64]] = []
        self.chunks = 0
        self._sum_KA: NDArray[np.float64] | float = 0.0
        self._count_K: NDArray[np.int64] | int = 0

    def add(self, actions_NA: NDArray[np.float64], chunks_CKA: NDArray[np.float64], execute_rows: int) -> None:
        starts = execute_rows * np.arange(len(chunks_CKA))
        rows_CK = starts[:, None] + np.arange(chunks_CKA.shape[1])
        there_CK = rows_CK < len(actions_NA)
        error_CKA = np.abs(chunks_CKA - actions_NA[np.minimum(rows_CK, len(actions_NA) - 1)])
        self._sum_KA = self._sum_KA + (error_CKA * there_CK[..., None]).sum(axis=0)
        self._count_K = self._count_K + there_CK.sum(axis=0)
        self.recorded.append(actions_NA)
        self.chunks += len(chunks_CKA)

    def error_KA(self) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return self._sum_KA / self._count_K[:, None]


def _keep(recording: Recording, chunks_CKA: NDArray[np.float64], execute_rows: int, dt_ns: int) -> DrawnEpisode:
    length = len(recording.actions_NA)
    executed_NA = chunks_CKA[:, :execute_rows].reshape(-1, chunks_CKA.shape[2])[:length]
    executed_NA = np.pad(executed_NA, ((0, length - len(executed_NA)), (0, 0)), constant_values=np.nan)
    starts = execute_rows * np.arange(len(chunks_CKA))
    return DrawnEpisode(
        recording.key, recording.instruction, dt_ns / NS_PER_S, recording.actions_NA, executed_NA, starts, chunks_CKA
    )


@contextmanager
def _same_noise() -> Iterator[None]:
    """Noise of its own for heads that draw some; whoever trains here gets torch's generators back as they were."""
    devices: Sequence[int] = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(NOISE_SEED)
        yield

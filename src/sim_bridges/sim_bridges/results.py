"""Episode results in, success rates with confidence intervals and latency percentiles out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """One episode.

    reason: name of the run's end (vla_policy.run.EndReason).
    steps: control periods from the first observation to the end.
    commands: float64 (steps, C), what was sent, columns as `RobotContract.command_names`.
    requested: the same before the guard's limits. latencies_ms: stage -> one value an inference (or a command) [ms].
    on_time: share of control periods in which a command was sent; None where time waits (lockstep).
    start_ns: stamp of the scene's first observation. setting: what was varied, of benchmarks on real robots.
    recording: folder of the bag that holds the episode.
    """

    task: str
    seed: int
    instruction: str
    success: bool
    reason: str
    message: str
    steps: int
    wall_s: float
    control_rate_hz: float
    commands: NDArray[np.float64]
    requested: NDArray[np.float64]
    latencies_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    on_time: float | None = None
    start_ns: int = 0
    setting: str = ""
    recording: str = ""


def joined(parts: Sequence[EpisodeResult]) -> EpisodeResult:
    """One episode of the instructions that it was played in, in order; the last one says how it ended."""
    if len(parts) == 1:
        return parts[0]
    steps, wall_s = sum(part.steps for part in parts), sum(part.wall_s for part in parts)
    shares = [part.on_time for part in parts if part.on_time is not None]
    stages = dict.fromkeys(stage for part in parts for stage in part.latencies_ms)
    return replace(
        parts[-1], instruction="; ".join(part.instruction for part in parts), steps=steps, wall_s=wall_s,
        control_rate_hz=steps / wall_s, commands=np.concatenate([part.commands for part in parts]),
        requested=np.concatenate([part.requested for part in parts]),
        latencies_ms={stage: [value for part in parts for value in part.latencies_ms.get(stage, ())]
                      for stage in stages},
        on_time=float(np.mean(shares)) if shares else None, start_ns=parts[0].start_ns)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a success probability (Wilson 1927). (0, 1) for no trials."""
    if trials == 0:
        return 0.0, 1.0
    rate, z2 = successes / trials, Z_95**2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """{"p50", "p95", "p99", "max", "count"} of the values; count alone where there are none."""
    array = np.fromiter(values, dtype=np.float64)
    if array.size == 0:
        return {"count": 0}
    ranks = {f"p{rank}": float(np.percentile(array, rank)) for rank in PERCENTILES}
    return {**ranks, "max": float(array.max()), "count": int(array.size)}


def summarise(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """The content of summary.json: overall and per-task success, latency percentiles, control rate."""
    low, high = wilson_interval(sum(r.success for r in results), len(results))
    tasks = list(dict.fromkeys(result.task for result in results))
    stages = list(dict.fromkeys(stage for result in results for stage in result.latencies_ms))
    settings = list(dict.fromkeys(result.setting for result in results if result.setting))
    on_time = [result.on_time for result in results if result.on_time is not None]
    return {
        "success_rate": _rate(results),
        "episodes": len(results),
        "interval_95": [low, high],
        "tasks": [{"task": task, **_group([r for r in results if r.task == task])} for task in tasks],
        **_by_setting(results, settings),
        "latency_ms": {stage: percentiles(v for result in results for v in result.latencies_ms.get(stage, ()))
                       for stage in stages},
        "control_rate_hz": float(np.mean([r.control_rate_hz for r in results])) if results else 0.0,
        "on_time": float(np.mean(on_time)) if on_time else None,
        "rows": [_episode_row(result) for result in results],
    }


def _rate(results: Sequence[EpisodeResult]) -> float:
    return sum(result.success for result in results) / len(results) if results else 0.0


def where_from(result: EpisodeResult) -> dict[str, str]:
    """The setting and the recording of an episode, where it has them."""
    known = {"setting": result.setting, "recording": result.recording}
    return {name: value for name, value in known.items() if value}


def _by_setting(results: Sequence[EpisodeResult], settings: Sequence[str]) -> dict[str, Any]:
    if not settings:
        return {}
    return {"settings": [{"setting": setting, **_group([r for r in results if r.setting == setting])}
                         for setting in settings]}


def _group(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    successes = sum(result.success for result in results)
    steps = [result.steps for result in results if result.success]
    return {"episodes": len(results), "successes": successes, "success_rate": successes / len(results),
            "interval_95": list(wilson_interval(successes, len(results))),
            "mean_steps_of_successes": float(np.mean(steps)) if steps else None}


def _episode_row(result: EpisodeResult) -> dict[str, Any]:
    return {"task": result.task, "seed": result.seed, "instruction": result.instruction, "success": result.success,
            "reason": result.reason, "message": result.message, "steps": result.steps,
            "wall_s": round(result.wall_s, 3), "control_rate_hz": round(result.control_rate_hz, 2),
            **where_from(result)}

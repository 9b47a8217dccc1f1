"""Functions in, how long they take out: measured in turn, so that what else the machine does burdens all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch

LEAST, MOST, WARM = 5, 2000, 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a call. cpu_p50_ms: of this process's CPU time, which other processes do not disturb."""

    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    cpu_p50_ms: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def measure(function: Callable[[], object], device: str, seconds: float) -> Timing:
    """One function by itself."""
    return measure_in_turn({"it": function}, device, seconds)["it"]


def measure_in_turn(functions: Mapping[str, Callable[[], object]], device: str, seconds: float) -> dict[str, Timing]:
    """Each function once, then each again, for `seconds` for each of them, at least five times."""
    for function in functions.values():
        for _ in range(WARM):
            function()
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    until, rounds = time.perf_counter() + seconds * len(functions), 0
    while rounds < LEAST or (time.perf_counter() < until and rounds < MOST):
        for name, function in functions.items():
            _wait(device)
            began, cpu_began = time.perf_counter(), time.process_time()
            function()
            _wait(device)
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - cpu_began)
        rounds += 1
    return {name: _timing(wall[name], cpu[name]) for name in functions}


def _timing(wall_s: list[float], cpu_s: list[float]) -> Timing:
    ms = 1e3 * np.array(wall_s)
    p50, p95, p99 = (float(np.percentile(ms, share)) for share in (50, 95, 99))
    return Timing(len(ms), p50, p95, p99, float(ms.mean()), float(1e3 * np.median(cpu_s)))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()

"""Section `loops`: each kind of engine beside the plain loops, same weights and frames, and how far actions differ."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from vla_policy.bench.baselines import FrameLoop, WindowLoop
from vla_policy.bench.cases import Frame, Settings, build, frames, instruction, make_engine
from vla_policy.bench.timing import measure_in_turn
from vla_policy.engine import Engine, Session
from vla_policy.model.vla import VLAModel

COMPARED = 3  # steps on full windows
# Of normalised actions, which span 2: float32 up to another order of sums, the others up to their rounding.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "int8": 0.1, "fp8": 0.2}
WINDOW_LOOP, ONE_THREAD, FRAME_LOOP = "window loop", "window loop, one thread", "frame loop"


def run(settings: Settings) -> dict[str, Any]:
    """Milliseconds a step of every loop, the ratios to the plain ones, and the largest difference of actions.

    On a CPU the window loop runs with all threads and with one; the ratio is to the faster.
    """
    on_cpu, rounded = settings.device == "cpu", settings.dtype in ("int8", "fp8")
    plain_dtype = settings.dtype if not rounded else "float32" if on_cpu else "bfloat16"
    model = build(settings.case, settings.device, plain_dtype)
    loops = {WINDOW_LOOP: WindowLoop(model, plain_dtype), FRAME_LOOP: FrameLoop(model, plain_dtype)}
    if on_cpu and torch.get_num_threads() > 1:
        loops[ONE_THREAD] = WindowLoop(model, plain_dtype, threads=1)
    engines = _engines(build(settings.case, settings.device, settings.dtype) if rounded else model, settings)
    errors = _feed(settings, loops, engines)
    source = frames(settings.case, model.config.image_size)
    steps = {name: partial(_step_loop, loop, source) for name, loop in loops.items()}
    steps |= {name: partial(_step, engine, session, source) for name, (engine, session, _) in engines.items()}
    timings = measure_in_turn(steps, settings.device, settings.seconds)
    return _report(settings, timings, errors, engines)


def _engines(model: VLAModel, settings: Settings) -> dict[str, tuple[Engine, Session, dict[str, float]]]:
    engines = {}
    for mode in settings.modes:
        began = time.perf_counter()
        if settings.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        engine = make_engine(model, settings, mode)
        session = engine.session()
        engine.begin(session, *instruction())
        source = frames(settings.case, model.config.image_size)
        cold = _timed_ms(partial(_step, engine, session, source))
        for _ in range(settings.case.window + COMPARED):
            _step(engine, session, source)
        facts = {"cold_ms": cold, "warm_up_s": time.perf_counter() - began}
        if settings.device.startswith("cuda"):
            facts["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        engines[mode] = engine, session, facts
    return engines


def _feed(settings: Settings, loops: dict[str, WindowLoop],
          engines: dict[str, tuple[Engine, Session, dict[str, float]]]) -> dict[str, float]:
    """The largest difference of each engine's actions to the window loop's, over some steps on full windows."""
    source = frames(settings.case, next(iter(engines.values()))[0].model.config.image_size)
    for engine, session, _ in engines.values():
        engine.begin(session, *instruction())
    errors = dict.fromkeys([*engines, FRAME_LOOP], 0.0)
    for index in range(settings.case.window + COMPARED):
        images, state = next(source)
        compared = index >= settings.case.window
        true = loops[WINDOW_LOOP].step((images, state)) if compared else None
        for name, loop in loops.items():
            if name == FRAME_LOOP:
                arm = loop.step((images, state))
                errors[name] = max(errors[name], _difference(arm, true))
            elif name != WINDOW_LOOP or not compared:
                loop.remember((images, state))
        for name, (engine, session, _) in engines.items():
            arm = engine.step([session], [images], [state]).arm[0]
            errors[name] = max(errors[name], _difference(arm, true))
    return errors


def _difference(arm: np.ndarray, true: np.ndarray | None) -> float:
    return 0.0 if true is None else float(np.abs(arm - true).max())


def _step_loop(loop: WindowLoop, source: Iterator[Frame]) -> None:
    loop.step(next(source))


def _step(engine: Engine, session: Session, source: Iterator[Frame]) -> None:
    images, state = next(source)
    engine.step([session], [images], [state])


def _timed_ms(function: Any) -> float:
    began = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - began)


def _report(settings: Settings, timings: dict[str, Any], errors: dict[str, float],
            engines: dict[str, tuple[Engine, Session, dict[str, float]]]) -> dict[str, Any]:
    allowed = TOLERANCE[settings.dtype]
    loop_ms = min(timing.p50_ms for name, timing in timings.items() if name in (WINDOW_LOOP, ONE_THREAD))
    rows: dict[str, dict[str, Any]] = {name: timing.as_dict() for name, timing in timings.items()}
    for name, (engine, _, facts) in engines.items():
        rows[name] |= facts | {
            "ratio_to_window_loop": loop_ms / rows[name]["p50_ms"],
            "ratio_to_frame_loop": timings[FRAME_LOOP].p50_ms / rows[name]["p50_ms"],
            "max_action_error": errors[name], "runs_as": engine.modes,
            "fallbacks": [str(fallback) for fallback in engine.fallbacks]}
    wrong = {name: error for name, error in errors.items() if not error <= allowed}
    head = f"{'':28}{'p50':>9}{'p95':>9}{'p99':>9}{'cpu p50':>9}     vs window  vs frame"
    told = dict.fromkeys(str(fallback) for engine, *_ in engines.values() for fallback in engine.fallbacks)
    verdict = (f"actions differ by at most {max(errors.values()):.1e} of a range of 2 (allowed {allowed:g})"
               if not wrong else f"ACTIONS DIFFER: {wrong}, allowed {allowed:g}")
    return {"rows": rows, "allowed_error": allowed, "within": not wrong,
            "lines": [head, *(_line(name, row) for name, row in rows.items()), *told, verdict]}


def _line(name: str, row: dict[str, Any]) -> str:
    times = f"{name:28}{row['p50_ms']:9.2f}{row['p95_ms']:9.2f}{row['p99_ms']:9.2f}{row['cpu_p50_ms']:9.2f} ms"
    if "ratio_to_window_loop" not in row:
        return times
    return (f"{times}{row['ratio_to_window_loop']:8.1f} x{row['ratio_to_frame_loop']:8.1f} x   "
            f"cold {row['cold_ms']:.0f} ms, action error {row['max_action_error']:.1e}")

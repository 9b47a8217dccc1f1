"""Section `scaling`: a step's time over the window, the cameras, the chunk and the robots in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from vla_policy.bench.cases import Settings, build, frames, full_session, instruction, make_engine
from vla_policy.bench.timing import measure_in_turn

VALUES = {"window": (1, 4, 16, 64), "cameras": (1, 2, 3, 4), "chunk": (1, 10, 100), "batch": (1, 4, 16, 64)}
QUICK = {"window": (4, 64), "batch": (1, 8)}
FLAT = (4, 64)  # windows whose ratio says whether the cost depends on the window
SHARE = 0.4


def run(settings: Settings) -> dict[str, Any]:
    """Milliseconds a step in the first kind of engine; of a batch, also a robot's share of it."""
    rows: dict[str, dict[str, Any]] = {}
    for what, values in (QUICK if settings.quick else VALUES).items():
        steps = {str(value): (_batch(settings, value) if what == "batch" else _changed(settings, what, value))
                 for value in values}
        rows[what] = {value: timing.as_dict()
                      for value, timing in measure_in_turn(steps, settings.device, SHARE * settings.seconds).items()}
    for size, row in rows["batch"].items():
        row["per_robot_ms"] = row["p50_ms"] / int(size)
    flat = rows["window"][str(FLAT[1])]["p50_ms"] / rows["window"][str(FLAT[0])]["p50_ms"]
    lines = [f"{what:10}" + "  ".join(f"{value}: {row['p50_ms']:.2f} ms" + (
        f" ({row['per_robot_ms']:.2f} a robot)" if "per_robot_ms" in row else "") for value, row in found.items())
        for what, found in rows.items()]
    return {"rows": rows, "window_64_over_4": flat, "mode": settings.modes[0],
            "lines": [*lines, f"window {FLAT[1]} over window {FLAT[0]}: {flat:.2f}"]}


def _changed(settings: Settings, what: str, value: int) -> Callable[[], object]:
    changed = settings.changed(**{what: value})
    engine = make_engine(build(changed.case, settings.device, settings.dtype), settings, settings.modes[0])
    session, source = full_session(engine, changed.case)
    return partial(_step, engine, [session], [source])


def _batch(settings: Settings, robots: int) -> Callable[[], object]:
    engine = make_engine(build(settings.case, settings.device, settings.dtype), settings, settings.modes[0])
    sessions = [engine.session() for _ in range(robots)]
    sources = [frames(settings.case, engine.model.config.image_size)] * robots  # their frames may be the same
    for session in sessions:
        engine.begin(session, *instruction())
    for _ in range(settings.case.window):
        _step(engine, sessions, sources)
    return partial(_step, engine, sessions, sources)


def _step(engine: Any, sessions: list[Any], sources: Iterable[Any]) -> None:
    images, states = zip(*(next(source) for source in sources), strict=True)
    engine.step(sessions, images, states)

"""How fast a policy is, measured side by side in one run.

    python -m vla_policy.bench                               the small model on this machine, all sections
    python -m vla_policy.bench --quick --json FILE           the same in under a minute
    python -m vla_policy.bench --backbone NAME --device cuda --dtype bfloat16 --modes eager graph compile
    python -m vla_policy.bench --compare OLD.json NEW.json   ratios of two runs

Weights are random at true size: nothing is downloaded. loops: the engine beside plain loops with the same weights.
stages: where a step's time goes. floor: what this machine cannot beat. scaling: over window, cameras, chunk and batch.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch

from vla_policy.bench.cases import Case, Settings
from vla_policy.bench.report import compare, machine, plot, read_json, write_json
from vla_policy.bench.sections import SECTIONS, announced, find_section
from vla_policy.engine import EngineMode, NumberType, choose_device
from vla_policy.errors import VlaError
from vla_policy.provenance import provenance

SECONDS, QUICK_SECONDS = 3.0, 1.5
USUAL = Case()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns 1 where a section failed, or actions differ more than allowed."""
    options = parse_arguments(arguments)
    try:
        if options.compare:
            old, new = (read_json(path) for path in options.compare)
            tell(*compare(old, new))
            return 0
        settings = settings_of(options)
        report, good = run(settings, options.sections or list(SECTIONS if options.quick else announced()), arguments)
        if options.json:
            write_json(options.json, report)
        if options.plot:
            plot(options.plot, report)
        tell(*headline(report))
    except VlaError as problem:
        sys.stderr.write(f"bench: {problem}\n")
        return 1
    return 0 if good else 1


def settings_of(options: argparse.Namespace) -> Settings:
    """Raises: ConfigError for what does not exist here."""
    case = Case(options.backbone, options.size, options.window, options.cameras, options.chunk, options.side)
    device = choose_device(options.device)
    case.config(options.dtype)  # refuses before anything is built
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    return Settings(case, device, options.dtype, tuple(dict.fromkeys(options.modes)), options.quick, seconds)


def run(settings: Settings, sections: Sequence[str], arguments: Sequence[str] | None) -> tuple[dict[str, Any], bool]:
    """Measure the sections; one that fails is reported by name and the others go on."""
    found = {name: find_section(name) for name in sections if name in SECTIONS}
    found |= {name: _other(name) for name in sections if name not in SECTIONS}
    logging.getLogger("vla_policy.engine").setLevel(logging.ERROR)  # fall-backs stand in the report
    facts = machine(settings.device)
    report: dict[str, Any] = {"provenance": provenance("bench", arguments), "machine": facts,
                              "case": settings.case.words(), "settings": asdict(settings), "sections": {}}
    tell(f"{report['case']}; {settings.device}, {settings.dtype}; {facts.get('gpu', facts['cpu'])}, "
         f"load {facts['load']:.1f}")
    good = True
    for name, section in found.items():
        began = time.perf_counter()
        try:
            result: dict[str, Any] = dict(section(settings))
        except Exception as problem:  # noqa: BLE001 - the other sections still tell something
            traceback.print_exc()
            result = {"failed": f"{type(problem).__name__}: {problem}", "lines": [f"FAILED: {problem}"]}
        good = good and "failed" not in result and result.get("within", True)
        tell("", f"== {name} ({time.perf_counter() - began:.0f} s)", *result.pop("lines", []))
        report["sections"][name] = result
        if settings.device.startswith("cuda"):
            torch.cuda.empty_cache()
    return report, good


def _other(name: str) -> Any:
    """A section of another package; its absence is told in its place."""
    try:
        return find_section(name)
    except ImportError as problem:
        why = f"not measured: {problem}"
        return lambda _: {"missing": why, "lines": [why]}


def headline(report: dict[str, Any]) -> list[str]:
    """The last lines: how many times faster the engine is than what one would run instead."""
    rows = report["sections"].get("loops", {}).get("rows", {})
    engines = {name: row for name, row in rows.items() if "ratio_to_window_loop" in row}
    return ["", *(f"{name}: {row['p50_ms']:.2f} ms a step; {row['ratio_to_window_loop']:.1f} times faster than the "
                  "loop that recomputes the window" for name, row in engines.items())]


def tell(*lines: str) -> None:
    """To the terminal, at once."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=USUAL.backbone, help="a name of `python -m vla_policy.models`")
    parser.add_argument("--size", default="published",
                        help="published, twin (for trying), or another size that the backbone names, as 500m")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="float32", choices=get_args(NumberType))
    parser.add_argument("--modes", nargs="+", default=["eager"], choices=get_args(EngineMode), help="kinds of engine")
    parser.add_argument("--window", type=_count, default=USUAL.window, help="frames that the head looks back on")
    parser.add_argument("--cameras", type=_count, default=USUAL.cameras)
    parser.add_argument("--chunk", type=_count, default=USUAL.chunk, help="rows that the head predicts")
    parser.add_argument("--side", type=_count, default=USUAL.side, help="of the model's square images [px]")
    parser.add_argument("--sections", nargs="+", choices=announced(), metavar="NAME",
                        help=f"{', '.join(announced())} (default: all; quick: {', '.join(SECTIONS)})")
    parser.add_argument("--quick", action="store_true", help="coarse figures in under a minute")
    parser.add_argument("--seconds", type=float, help="how long each thing is measured (default 3, quick 1.5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw it")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"), help="ratios of two JSON files")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got '{text}', expected a whole number of 1 or more")
    return int(text)

"""Success rates, their intervals, and what summary.json holds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sim_bridges.results import EpisodeResult, percentiles, summarise, wilson_interval


def episode(task: str, success: bool, seed: int = 0, **details: object) -> EpisodeResult:
    return EpisodeResult(
        **{
            "task": task,
            "seed": seed,
            "instruction": f"do {task}",
            "success": success,
            "reason": "SUCCEEDED" if success else "TIME_LIMIT",
            "message": "",
            "steps": 100,
            "wall_s": 4.0,
            "control_rate_hz": 25.0,
            "commands": np.zeros((100, 7)),
            "requested": np.zeros((100, 7)),
        }
        | details
    )


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (25, 25, 0.8668, 1.0000),
    ],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_no_trials_tell_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_percentiles() -> None:
    assert percentiles(range(101)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0, "count": 101}
    assert percentiles([]) == {"count": 0}


def test_a_summary_counts_by_task_and_in_all() -> None:
    summary = summarise(
        [
            episode("lift", True, seed=1, steps=80, latencies_ms={"model": [1.0, 3.0]}),
            episode("open", False, seed=1, on_time=0.9),
            episode("lift", True, seed=2, steps=60, latencies_ms={"model": [2.0], "decode": [0.5]}),
            episode("open", True, seed=2, steps=40, on_time=1.0),
        ]
    )
    assert (summary["episodes"], summary["success_rate"]) == (4, 0.75)
    assert summary["interval_95"] == list(wilson_interval(3, 4))
    lift, opened = summary["tasks"]
    assert (lift["task"], lift["episodes"], lift["successes"], lift["success_rate"]) == ("lift", 2, 2, 1.0)
    assert lift["mean_steps_of_successes"] == 70.0
    assert (opened["success_rate"], opened["mean_steps_of_successes"]) == (0.5, 40.0)
    assert summary["latency_ms"]["model"] == percentiles([1.0, 2.0, 3.0])
    assert summary["latency_ms"]["decode"]["count"] == 1
    assert summary["on_time"] == pytest.approx(0.95)
    assert [(row["task"], row["seed"], row["success"]) for row in summary["rows"]] == [
        ("lift", 1, True),
        ("open", 1, False),
        ("lift", 2, True),
        ("open", 2, True),
    ]
    json.dumps(summary, allow_nan=False)


def test_tasks_without_success_and_no_episodes_at_all() -> None:
    assert summarise([episode("lift", False)])["tasks"][0]["mean_steps_of_successes"] is None
    empty = summarise([])
    assert (empty["episodes"], empty["success_rate"], empty["on_time"], empty["tasks"]) == (0, 0.0, None, [])
    json.dumps(empty, allow_nan=False)

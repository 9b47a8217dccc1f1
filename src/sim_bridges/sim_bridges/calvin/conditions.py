"""A symbolic state and a task's name in, the states that the task can lead to out: which task can follow which.

The rules by which CALVIN's benchmark draws its sequences of tasks. A state maps KEYS to values, in that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product

State = dict[str, int | str]

BLOCKS = ("red_block", "blue_block", "pink_block")
SHELVES = ("slider_right", "slider_left")  # where a block can lie besides the table at the start
# What a scene can begin with, by key; the last value changes fastest.
START_VALUES: dict[str, tuple[int | str, ...]] = {
    "led": (0, 1), "lightbulb": (0, 1), "slider": ("right", "left"), "drawer": ("closed", "open"),
    **dict.fromkeys(BLOCKS, ("table", *SHELVES)), "grasped": (0,)}
KEYS = tuple(START_VALUES)


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to do a task: what must hold before (several values: any of them) and what it changes."""

    needs: Mapping[str, tuple[int | str, ...]]
    makes: Mapping[str, int | str]


def _rule(needs: Mapping[str, object], makes: Mapping[str, int | str] | None = None) -> Rule:
    """With an empty hand, unless `needs` speaks of it."""
    needs = {"grasped": 0} | dict(needs)
    return Rule({key: value if isinstance(value, tuple) else (value,) for key, value in needs.items()}, makes or {})


def _lift(block: str, needs: Mapping[str, object]) -> Rule:
    return _rule(needs, {block: "grasped", "grasped": 1})


def _release(block: str, needs: Mapping[str, object], makes: Mapping[str, int | str]) -> Rule:
    return _rule({block: "grasped", "grasped": 1} | dict(needs), {**makes, "grasped": 0})


def _rules() -> dict[str, tuple[Rule, ...]]:
    """Task -> the ways to do it, in the order in which CALVIN numbers its tasks."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for verb, block, side in product(("rotate", "push"), BLOCKS, ("right", "left")):
        rules[f"{verb}_{block}_{side}"] = (_rule({block: "table"}),)
    rules["move_slider_left"] = (_rule({"slider": "right"}, {"slider": "left"}),)
    rules["move_slider_right"] = (_rule({"slider": "left"}, {"slider": "right"}),)
    rules["open_drawer"] = (_rule({"drawer": "closed"}, {"drawer": "open"}),)
    rules["close_drawer"] = (_rule({"drawer": "open"}, {"drawer": "closed"}),)
    for block in BLOCKS:
        rules[f"lift_{block}_table"] = (_lift(block, {block: "table"}),)
        # The door hides one shelf: a block on the left shelf is free when the door stands right.
        rules[f"lift_{block}_slider"] = (_lift(block, {block: "slider_left", "slider": "right"}),
                                         _lift(block, {block: "slider_right", "slider": "left"}))
        rules[f"lift_{block}_drawer"] = (_lift(block, {block: "drawer", "drawer": "open"}),)
    # Placing names the shelf by where the door stands, as CALVIN's own rules do.
    rules["place_in_slider"] = tuple(_release(block, {"slider": side}, {block: f"slider_{side}"})
                                     for block in BLOCKS for side in ("right", "left"))
    rules["place_in_drawer"] = tuple(_release(block, {"drawer": "open"}, {block: "drawer"}) for block in BLOCKS)
    pairs = tuple(permutations(BLOCKS, 2))
    rules["stack_block"] = tuple(
        _release(top, {bottom: "table"}, {top: "stacked_top", bottom: "stacked_bottom"}) for top, bottom in pairs)
    rules["unstack_block"] = tuple(
        _rule({top: "stacked_top", bottom: "stacked_bottom"}, {top: "table", bottom: "table"})
        for top, bottom in pairs)
    for light, (verb, before) in product(("lightbulb", "led"), (("on", 0), ("off", 1))):
        rules[f"turn_{verb}_{light}"] = (_rule({light: before}, {light: 1 - before}),)
    rules["push_into_drawer"] = tuple(
        _rule({"drawer": "open", block: "table"} | {other: SHELVES for other in BLOCKS if other != block},
              {block: "drawer"}) for block in BLOCKS)
    return rules


RULES = _rules()
TASKS = tuple(RULES)


def _kind(task: str) -> str:
    """Tasks of one kind never occur twice in a sequence. Lifting has one kind for each place."""
    verb, *words = task.split("_")
    if verb in ("rotate", "push") and words[0] != "into":
        return "move a block"
    if verb == "lift":
        return f"lift {words[-1]}"
    if verb in ("place", "turn"):
        return verb
    return {"open_drawer": "drawer", "close_drawer": "drawer"}.get(task, verb)


KINDS = {task: _kind(task) for task in TASKS}


def start_states() -> list[State]:
    """The 192 states that a sequence can begin with: one or two blocks on the table, one at most on each shelf."""
    states = [dict(zip(KEYS, values, strict=True)) for values in product(*START_VALUES.values())]
    return [state for state in states if _places_fit([state[block] for block in BLOCKS])]


def outcomes(state: Mapping[str, int | str], task: str) -> list[State]:
    """The states that `task` can lead to from `state`; empty where it cannot be done."""
    return [dict(state) | rule.makes for rule in RULES[task]
            if all(state[key] in values for key, values in rule.needs.items())]


def _places_fit(places: list[int | str]) -> bool:
    return 1 <= places.count("table") <= 2 and all(places.count(shelf) < 2 for shelf in SHELVES)

"""Against the genuine code: SIMPLER's scripts, its environments (SIMPLER_ROOT), and ManiSkill3's twins, where they are.

The environments need a Vulkan driver and minutes; without them, or without the code, the tests say so and are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_simpler import form, walk
from simpler_double import RECORD

from sim_bridges.agreement import mean_maximum_rank_violation, pearson_correlation
from sim_bridges.simpler.addresses import find_scene
from sim_bridges.simpler.protocol import AGGREGATION, CAMERAS, MATCHING, TASKS
from sim_bridges.simpler.robots import GOOGLE, WIDOWX
from sim_bridges.simpler.sim import SimplerSim
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError
from vla_policy.resources import find_contract
from vla_policy.types import Command

ROOT = os.environ.get("SIMPLER_ROOT", "")
needs_root = pytest.mark.skipif(not ROOT, reason="SIMPLER_ROOT is not set; see docs/simpler.md")
SCRIPTS = ("pick_coke_can", "move_near", "drawer", "put_in_drawer")


# ---- the scripts ------------------------------------------------------------------------------------------------


def invocations(script: Path, folder: Path) -> list[list[str]]:
    """What a script calls Python with; a shell script stands in for it and writes its arguments down."""
    log = folder / "calls"
    fake = folder / "python"
    fake.write_text(f'#!/bin/sh\nfor word in "$@"; do printf "%s\\t" "$word"; done >> {log}\necho >> {log}\n')
    fake.chmod(0o755)
    subprocess.run(["bash", str(script)], env={"PATH": f"{folder}:{os.environ['PATH']}"}, check=True,
                   capture_output=True, timeout=150)
    return [line.rstrip("\t").split("\t") for line in log.read_text().splitlines()]


def options_of(words: list[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name = word[2:].removesuffix("-range")
            options[name] = []
        elif options:
            options[name].append(word)
    return options


def spread(words: list[str]) -> list[float]:
    return np.linspace(float(words[0]), float(words[1]), int(words[2])).tolist()


Episode = tuple[Any, ...]


def script_episodes(words: list[str]) -> Iterator[Episode]:
    """The episodes of one call: environment, arguments, steps, rates, photo, base, and object or layout."""
    options = options_of(words)
    build = dict(pair.split("=") for pair in options.get("additional-env-build-kwargs", ()))
    if "enable-raytracing" in options:
        build["shader_dir"] = "rt"
    yaws = spread(options["robot-init-rot-rpy"][6:])
    assert options["robot-init-rot-quat-center"] == ["0", "0", "0", "1"]
    if options.get("obj-variation-mode") == ["episode"]:
        begin, end = map(int, options["obj-episode"])
        objects: list[Any] = list(range(begin, end))
    else:
        objects = list(product(spread(options["obj-init-x"]), spread(options["obj-init-y"])))
    environment = options["env-name"][0]
    overlay = Path(options["rgb-overlay-path"][0]).name if "rgb-overlay-path" in options else None
    for x, y, yaw, place in product(spread(options["robot-init-x"]), spread(options["robot-init-y"]), yaws, objects):
        yield (environment, options["robot"][0], options["scene-name"][0], frozenset(build.items()),
               int(options["max-episode-steps"][0]), int(options["control-freq"][0]), int(options["sim-freq"][0]),
               overlay, (x, y, yaw), None if place == (0.0, 0.0) else place)


def our_episodes(tasks: Iterator[str], sets: tuple[str, ...]) -> Iterator[Episode]:
    for task in (TASKS[name] for name in tasks):
        for variant in (variant for name in sets for variant in task.sets.get(name, ())):
            build = {key: str(value) for key, value in variant.build.items()}
            if variant.station not in (None, "mk_station"):  # which is what the environment itself takes
                build["station_name"] = str(variant.station)
            for start in variant.starts:
                place = start.object_xy_m if start.layout is None else start.layout
                yield (variant.environment, variant.body, variant.scene, frozenset(build.items()), task.steps,
                       task.robot.rate_hz, task.robot.sim_hz, start.overlay, start.base, place)


@needs_root
@pytest.mark.parametrize(("script", "words", "sets"), [
    *((f"rt1_{name}_visual_matching", name, (MATCHING,)) for name in SCRIPTS),
    *((f"rt1_{name}_variant_agg", name, (AGGREGATION, CAMERAS)) for name in SCRIPTS),
    ("octo_bridge", "widowx", (MATCHING,))])
def test_the_protocol_is_that_of_the_published_scripts(
        tmp_path: Path, script: str, words: str, sets: tuple[str, ...]) -> None:
    calls = invocations(Path(ROOT) / "scripts" / f"{script}.sh", tmp_path)
    theirs = {episode for call in calls for episode in script_episodes(call)}
    begins = {"pick_coke_can": ("pick",), "move_near": ("move",), "drawer": ("open", "close"),
              "put_in_drawer": ("place",), "widowx": ("widowx",)}[words]
    tasks = (name for name in TASKS if name.removeprefix("google_robot_").startswith(begins))
    ours = list(our_episodes(tasks, sets))
    assert len(ours) == len(set(ours)) and set(ours) == theirs


@needs_root
def test_agreement_is_what_simplers_own_code_says() -> None:
    """Over the rates that SIMPLER publishes, real and simulated, for each of its tasks."""
    path = Path(ROOT) / "simpler_env/utils/metrics.py"
    spec = importlib.util.spec_from_file_location("simpler_metrics", path)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    for task, real in theirs.REAL_PERF.items():
        sim = list(theirs.SIMPLER_PERF[task].values())
        true = [real[policy] for policy in theirs.SIMPLER_PERF[task]]
        assert mean_maximum_rank_violation(sim, true) == pytest.approx(theirs.mean_maximum_rank_violation(sim, true))
        ours = pearson_correlation(sim, true)
        assert ours is None or ours == pytest.approx(theirs.pearson_correlation(sim, true), abs=1e-5)


# ---- the environments -------------------------------------------------------------------------------------------


def opened(contract_name: str, task: str) -> SimplerSim:
    """A sim that stands in the first scene of a task; skips where this machine cannot play it."""
    sim = SimplerSim(load_contract(find_contract(contract_name)))
    try:
        sim.reset(task, 0)
    except ConfigError as problem:
        sim.close()
        pytest.skip(str(problem))
    return sim


PLAYED = [pytest.param("simpler_widowx", "widowx_stack_cube/visual_matching", marks=needs_root),
          pytest.param("simpler_google", "google_robot_pick_horizontal_coke_can/visual_matching", marks=needs_root),
          ("simpler_widowx", "widowx_stack_cube/twins")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("contract", "task"), PLAYED)
def test_an_environment_is_as_recorded_and_begins_alike_whatever_came_before(contract: str, task: str) -> None:
    sim = opened(contract, task)
    try:
        found, record = walk(sim.world, task), RECORD[task]
        assert (found["instruction"], found["image"], found["info"]) == (
            record["instruction"], record["image"], record["info"])
        for part in ("joints", "position", "quaternion"):
            assert found["start"][part] == pytest.approx(record["start"][part], abs=1e-5)
        for bound in ("low", "high"):
            assert found["joints"][bound] == pytest.approx(record["joints"][bound], abs=2e-2)
        played = [_play(sim, task) for _ in range(2)]
        assert np.array_equal(*(states for states, _ in played)) and np.array_equal(*(image for _, image in played))
        assert played[0][1].std() > 5.0
    finally:
        sim.close()


def _play(sim: SimplerSim, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Joints over a few steps and the last image."""
    sim.reset(task, 0)
    states = [sim.observe(images=False).joints]
    for _ in range(4):
        twist = np.array([0.01, 0.01, -0.02, 0.0, 0.0, 0.1]) * sim.robot.rate_hz
        sim.advance(Command(0, twist, 1.0), sim.period_ns)
        states.append(sim.observe(images=False).joints)
    return np.stack(states), sim.observe().images[sim.robot.camera]


@needs_root
@pytest.mark.timeout(600)
def test_an_episode_is_that_of_simplers_own_loop() -> None:
    """Its environment built and stepped as by its evaluator, wrappers and all: same start, states and images."""
    address, robot = "widowx_stack_cube", WIDOWX
    sim = opened("simpler_widowx", address)
    try:
        states, image = _play(sim, address)
        scene, checkout = find_scene(address, 0, robot), sim.world._checkout
    finally:
        sim.close()
    import gymnasium

    env = gymnasium.make(
        scene.variant.environment, obs_mode="rgbd", robot=scene.variant.body, sim_freq=robot.sim_hz,
        control_freq=robot.rate_hz, control_mode=robot.control_mode, max_episode_steps=60,
        scene_name=scene.variant.scene, camera_cfgs={"add_segmentation": True},
        rgb_overlay_path=str(checkout.overlay(scene.start.overlay)), rgb_overlay_cameras=[robot.their_camera])
    seen, _ = env.reset(options={"robot_init_options": {"init_xy": np.array([0.147, 0.028]),
                                                        "init_rot_quat": [0, 0, 0, 1]},
                                 "obj_init_options": {"episode_id": 0}})
    theirs = [seen["agent"]["qpos"]]
    for _ in range(4):
        seen = env.step(np.array([0.01, 0.01, -0.02, 0.0, 0.0, 0.1, 1.0]))[0]
        theirs.append(seen["agent"]["qpos"])
    assert np.allclose(states, theirs, atol=1e-6)
    differing = np.abs(seen["image"][robot.their_camera]["rgb"].astype(int) - image).max(-1) > 2
    assert differing.mean() < 1e-3
    env.close()


@needs_root
@pytest.mark.timeout(600)
def test_the_apple_has_two_instructions() -> None:
    name = "google_robot_place_apple_in_closed_top_drawer"
    sim = opened("simpler_google", name)
    try:
        env = sim.world.env
        assert (sim.reset(name, 0).instruction, env.force_advance_subtask_time_steps) == ("open top drawer", 100)
        assert TASKS[name].first_steps == env.force_advance_subtask_time_steps + 1
        assert sim.next_task().instruction == "place apple into top drawer" and env.is_final_subtask()
        assert form({"success": bool(sim.world.solved())}) == {"success": "bool"}
    finally:
        sim.close()


def test_robots_of_the_contracts_are_the_recorded_ones() -> None:
    for address, record in RECORD.items():
        robot = TASKS[address.partition("/")[0]].robot
        assert len(record["start"]["joints"]) == len(robot.joints)
        assert record["image"] == [[robot.size[1], robot.size[0], 3], "uint8"]
    assert GOOGLE.period_ns == 333_333_333 and WIDOWX.period_ns == 200_000_000

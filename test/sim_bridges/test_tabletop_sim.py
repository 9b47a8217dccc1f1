"""The tabletop as a Sim: bit-determinism, time, holding, refusals, and places that match the pictures."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim_bridges.tabletop import TabletopSim
from sim_bridges.tabletop.arm import FINGER_OPEN_M
from sim_bridges.tabletop.scene import BLOCKS
from vla_policy.contract import load_contract
from vla_policy.errors import ContractError, VlaError
from vla_policy.resources import find_contract
from vla_policy.types import Command

DT_NS = 50_000_000


@pytest.fixture(scope="module")
def sim():
    sim = TabletopSim(64)
    yield sim
    sim.close()


def commands(count: int = 12) -> list[Command]:
    """A fixed, busy sequence: every axis, and the gripper both ways."""
    rng = np.random.default_rng(7)
    twists = rng.normal(0, [0.2, 0.2, 0.2, 0.5, 0.5, 0.5], (count, 6))
    return [Command(0, twist, float(i % 6 < 3)) for i, twist in enumerate(twists)]


def play(sim: TabletopSim, task: str, seed: int, slices: int = 1, images: bool = True) -> list[bytes]:
    """Everything the sim can show after each command, as bytes."""
    sim.reset(task, seed)
    trace = []
    for command in commands():
        for _ in range(slices):
            sim.advance(command, DT_NS // slices)
        seen = sim.observe(images=images)
        data = sim.scene.data
        state = [data.qpos, data.qvel, seen.joints, seen.pose.quaternion]
        trace += [array.tobytes() for array in (*state, *seen.images.values())]
    return trace


def digest(trace: list[bytes]) -> str:
    return hashlib.sha256(b"".join(trace)).hexdigest()


def test_what_happened_before_a_reset_leaves_no_trace(sim):
    first = play(sim, "close_drawer", 5)
    play(sim, "lift_red_block", 1)
    sim.scatter(np.random.default_rng(3))
    assert play(sim, "close_drawer", 5) == first


def test_another_process_sees_the_same_bits(sim):
    code = ("from test_tabletop_sim import TabletopSim, digest, play\n"
            "import sys\n"
            "sys.stdout.write(digest(play(TabletopSim(64), 'push_left', 2)))")
    path = [*sys.path, str(Path(__file__).parent)]
    run = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {path!r}\n{code}"],
                         capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout == digest(play(sim, "push_left", 2))


def test_five_slices_of_10_ms_equal_one_of_50_ms(sim):
    assert play(sim, "open_drawer", 4, slices=5) == play(sim, "open_drawer", 4)


def test_looking_does_not_change_the_world(sim):
    with_pictures = [part for part in play(sim, "press_button", 1, images=True) if len(part) < 64 * 64 * 3]
    assert play(sim, "press_button", 1, images=False) == with_pictures


def test_a_twin_in_the_same_scene_takes_on_the_whole_state(sim):
    twin = TabletopSim(64)
    sim.reset("turn_on_light", 4), twin.reset("turn_on_light", 4)
    for command in commands():
        sim.advance(command, DT_NS)
    sim.scene.light_on, sim.scene.button_armed = True, False
    twin.restore(sim.state())
    assert np.array_equal(twin.state(), sim.state()) and twin.scene.light_on and not twin.scene.button_armed
    for name, place in sim.positions().items():
        assert np.allclose(twin.positions()[name], place, atol=2e-3), name  # one step of physics, 2 ms, is between
    assert np.allclose(twin.arm.rotation, sim.arm.rotation, atol=1e-2) and twin.arm.finger_m == sim.arm.finger_m
    for state in (sim.state()[1:], np.full_like(sim.state(), np.nan)):
        with pytest.raises(VlaError, match="not of this simulator"):
            twin.restore(state)
    twin.close()


def test_seeds_differ(sim):
    assert digest(play(sim, "push_left", 2, images=False)) != digest(play(sim, "push_left", 3, images=False))


def test_time_grows_and_does_not_go_back_on_reset(sim):
    before = sim.time_ns
    sim.advance(None, DT_NS)
    assert sim.time_ns == before + DT_NS
    sim.reset("press_button", 0)
    assert sim.time_ns == before + DT_NS
    assert sim.observe(images=False).stamp_ns == sim.time_ns


def test_without_a_command_the_arm_and_the_fingers_stay(sim):
    sim.reset("lift_red_block", 0)
    before = sim.observe(images=False)
    sim.advance(None, 20 * DT_NS)
    after = sim.observe(images=False)
    assert np.abs(after.pose.position - before.pose.position).max() < 1e-3
    assert np.abs(after.joints - before.joints).max() < 5e-3


def test_a_twist_moves_the_tool_at_its_speed_in_the_base_frame(sim):
    sim.reset("lift_red_block", 0)
    start = sim.arm.position
    sim.advance(Command(0, np.array([0.0, 0.2, 0.0, 0.0, 0.0, 0.0]), 0.0), 10 * DT_NS)
    sim.advance(None, 4 * DT_NS)
    assert sim.arm.position - start == pytest.approx([0.0, 0.1, 0.0], abs=2e-3)
    assert sim.arm.finger_m < 0.001


def test_the_tool_turns_about_the_base_axis(sim):
    sim.reset("lift_red_block", 0)
    start = sim.arm.rotation
    sim.advance(Command(0, np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.5]), None), 10 * DT_NS)
    sim.advance(None, 4 * DT_NS)
    turn = sim.arm.rotation @ start.T
    assert np.arctan2(turn[1, 0], turn[0, 0]) == pytest.approx(0.25, abs=0.02)
    assert sim.arm.finger_m == pytest.approx(FINGER_OPEN_M, abs=1e-3)


def test_the_target_cannot_run_away_from_a_blocked_arm(sim):
    sim.reset("lift_red_block", 0)
    down = Command(0, np.array([0.0, 0.0, -0.4, 0.0, 0.0, 0.0]), None)
    sim.advance(down, 60 * DT_NS)  # far into the table
    low = sim.arm.position[2]
    sim.advance(Command(0, np.array([0.0, 0.0, 0.4, 0.0, 0.0, 0.0]), None), 5 * DT_NS)
    assert low > -0.02
    assert sim.arm.position[2] > low + 0.04  # comes up at once: no distance was wound up


def test_the_observation_fits_the_contract(sim):
    contract = load_contract(find_contract("tabletop"))
    sim = TabletopSim.for_contract(contract)
    sim.reset("lift_red_block", 0)
    seen = sim.observe()
    sim.close()
    assert list(seen.images) == list(contract.cameras)
    for name, camera in contract.cameras.items():
        assert seen.images[name].shape == (camera.height, camera.width, 3)
        assert seen.images[name].dtype == np.uint8
    assert seen.joints.shape == (len(contract.joints.names),)
    assert np.linalg.norm(seen.pose.quaternion) == pytest.approx(1.0)
    box = contract.limits.workspace
    low, high = np.array([box.x, box.y, box.z]).T
    assert (low < seen.pose.position).all() and (seen.pose.position < high).all()


def test_left_in_the_words_is_left_in_the_static_picture(sim):
    sim.reset("lift_red_block", 0)
    sim.scene.put_block("red", np.array([0.45, -0.18, 0.025]), 0.0)
    sim.scene.put_block("blue", np.array([0.45, 0.0, 0.025]), 0.0)
    sim.advance(None, DT_NS)
    picture = sim.render("static").astype(float)
    red = np.argwhere((picture[..., 0] > 1.8 * picture[..., 1]) & (picture[..., 0] > 1.8 * picture[..., 2]))
    blue = np.argwhere((picture[..., 2] > 1.4 * picture[..., 1]) & (picture[..., 2] > 1.4 * picture[..., 0]))
    assert len(red) > 10 and len(blue) > 10
    assert red[:, 1].mean() < blue[:, 1].mean() - 5


def test_scatter_gives_places_of_all_things_and_no_task(sim):
    rng = np.random.default_rng(11)
    tools, held = [], 0
    for _ in range(30):
        sim.scatter(rng)
        places = sim.positions()
        tools.append(sim.arm.position)
        held += any(np.linalg.norm(places[f"{colour}_block"] - tools[-1]) < 0.02 for colour in BLOCKS)
    things = {"white_pad", "black_pad", "drawer", "drawer_inside", "button", "light", "lamp_front"}
    assert set(places) == things | {f"{colour}_block" for colour in BLOCKS}
    assert sim.goal is None and not sim.success()
    assert np.ptp(tools, axis=0) == pytest.approx([0.35, 0.6, 0.28], abs=0.1)
    assert 5 <= held <= 20  # two in five
    with pytest.raises(VlaError, match="no task.*reset"):
        sim.target_position()


@pytest.mark.parametrize(("call", "words"), [
    (lambda s: s.reset("lift_red_blok", 0), "got 'lift_red_blok'.*did you mean 'lift_red_block'"),
    (lambda s: s.reset("press_button", -1), "seed: got -1, expected 0 or more"),
    (lambda s: s.advance(None, 15_000_000), "got 15000000 ns, expected a positive multiple of 10000000"),
    (lambda s: s.advance(None, 0), "got 0 ns"),
    (lambda s: s.advance(Command(0, np.zeros(7), 1.0), DT_NS), "expected 6 finite numbers"),
    (lambda s: s.advance(Command(0, np.full(6, np.nan), 1.0), DT_NS), "expected 6 finite numbers"),
    (lambda s: s.advance(Command(0, np.zeros(6), float("inf")), DT_NS), "got gripper inf"),
    (lambda s: TabletopSim(100_000), "got image_size 100000, expected 1"),
])
def test_refusals_say_got_and_expected_and_change_nothing(sim, call, words):
    sim.reset("press_button", 3)
    before, time_ns = sim.scene.data.qpos.copy(), sim.time_ns
    with pytest.raises(VlaError, match=words):
        call(sim)
    assert np.array_equal(sim.scene.data.qpos, before)
    assert sim.time_ns == time_ns and sim.goal.task == "press_button"


def test_a_contract_with_other_cameras_is_refused():
    contract = load_contract(find_contract("tabletop"))
    cameras = {"front": contract.cameras["static"], "wrist": contract.cameras["wrist"]}
    with pytest.raises(ContractError, match="got cameras front, wrist.*expected static, wrist"):
        TabletopSim.for_contract(contract.model_copy(update={"cameras": cameras}))


@pytest.mark.parametrize("change", [{"compressed": True}, {"encoding": "bgr8"}])
def test_images_that_the_tabletop_does_not_send_are_refused(change):
    contract = load_contract(find_contract("tabletop"))
    cameras = contract.cameras | {"wrist": contract.cameras["wrist"].model_copy(update=change)}
    with pytest.raises(ContractError, match="cameras wrist: got compressed or another encoding, expected rgb8"):
        TabletopSim.for_contract(contract.model_copy(update={"cameras": cameras}))


@pytest.mark.parametrize("rate_hz", [30, 200])
def test_a_control_rate_that_is_no_whole_number_of_periods_is_refused(rate_hz):
    contract = load_contract(find_contract("tabletop"))
    with pytest.raises(ContractError, match=f"got control_rate_hz {rate_hz}, expected 100 Hz or a whole fraction"):
        TabletopSim.for_contract(contract.model_copy(update={"control_rate_hz": float(rate_hz)}))


MISSING = """
import ctypes
class WithoutOSMesa(ctypes.CDLL):
    def __init__(self, name=None, *arguments, **keywords):
        if name and "OSMesa" in str(name):
            raise OSError(f"{name}: cannot open shared object file")
        super().__init__(name, *arguments, **keywords)
ctypes.CDLL = ctypes.cdll._dlltype = WithoutOSMesa
"""


@pytest.mark.parametrize(("backend", "before", "words"), [
    ("osmesa", MISSING, "install it, e.g. `sudo apt install libosmesa6`"),
    ("opengl", "", "MUJOCO_GL: got 'opengl', expected osmesa|egl|glfw"),
])
def test_a_missing_library_is_named_with_what_to_install(backend, before, words):
    code = f"""import sys; sys.path[:] = {sys.path!r}
{before}
from vla_policy.errors import VlaError
try:
    from sim_bridges.tabletop import TabletopSim
    TabletopSim(32).render("static")
except VlaError as problem:
    sys.exit(f"refused: {{problem}}")
"""
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True,
                         timeout=120, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("refused: ") and words in run.stderr

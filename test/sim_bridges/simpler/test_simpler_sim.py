"""SimplerSim on doubles of SIMPLER's environments: scenes, observations, actions, judging, two instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simpler_double import FAR_M, RECORD, SOURCE_M, TARGET_M, DoubleEnv, double_world

from sim_bridges.rollout import rollout
from sim_bridges.simpler.experts import Expert
from sim_bridges.simpler.protocol import TASKS
from sim_bridges.simpler.sim import SimplerSim
from vla_policy.contract import RobotContract, load_contract, parse_contract
from vla_policy.errors import ContractError, VlaError
from vla_policy.resources import find_contract
from vla_policy.types import ActionChunk, Command, Observation

WIDOWX = load_contract(find_contract("simpler_widowx"))
GOOGLE = load_contract(find_contract("simpler_google"))
CARROT, CAN = "widowx_carrot_on_plate", "google_robot_pick_horizontal_coke_can"
APPLE = "google_robot_place_apple_in_closed_top_drawer"
STILL, RISING = np.zeros(7), np.array([0.0, 0.0, 0.01, 0.0, 0.0, 0.0, 1.0])


class RowPolicy:
    """Says chunks of one row again and again. rows: one for each instruction, the last for all later ones."""

    def __init__(self, contract: RobotContract, *rows: np.ndarray, chunk: int = 1) -> None:
        self.period_ns, self.timings = chunk * contract.action_dt_ns, {}
        self.instructions: list[str] = []
        self._rows, self._chunk, self._dt_ns = rows, chunk, contract.action_dt_ns

    def reset(self, instruction: str) -> None:
        self.instructions.append(instruction)

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        row = self._rows[min(len(self.instructions), len(self._rows)) - 1]
        return ActionChunk(observation.stamp_ns, self._dt_ns, np.repeat(row[None], self._chunk, 0), self._chunk, run_id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(params=["", "/twins"])
def widowx(request: pytest.FixtureRequest, folder: Path) -> tuple[SimplerSim, str]:
    return SimplerSim(WIDOWX, double_world(folder)), CARROT + request.param


@pytest.fixture
def google(folder: Path) -> SimplerSim:
    return SimplerSim(GOOGLE, double_world(folder))


def env_of(sim: SimplerSim) -> Any:
    return sim.world.env


def changed(contract: RobotContract, **changes: object) -> RobotContract:
    return parse_contract(contract.model_dump(mode="json") | changes, "test")


def test_nothing_is_opened_before_the_first_scene(folder: Path) -> None:
    opened = []
    sim = SimplerSim(WIDOWX, lambda robot, name: opened.append(name) or double_world(folder)(robot, name))
    assert sim.tasks == tuple(name for name in TASKS if name.startswith("widowx")) and not opened
    sim.reset(CARROT, 0)
    sim.reset(f"{CARROT}/twins", 0)
    sim.reset(f"{CARROT}/twins", 1)
    assert opened == ["visual_matching", "twins"]


def test_an_observation_is_in_the_contracts_order_units_and_frame(widowx: tuple[SimplerSim, str]) -> None:
    sim, task = widowx
    episode = sim.reset(task, 3)
    assert (episode.task, episode.seed, episode.time_limit_s, episode.more) == (task, 3, 12.0, False)
    seen = sim.observe()
    start = RECORD["widowx_stack_cube/visual_matching"]["start"]
    assert seen.images["third_view"].shape == (480, 640, 3) and seen.images["third_view"].dtype == np.uint8
    assert seen.images["third_view"].flags["C_CONTIGUOUS"]
    assert seen.joints == pytest.approx(start["joints"]) and seen.joints.dtype == np.float64
    assert seen.pose.position == pytest.approx(start["position"])
    assert abs(seen.pose.quaternion @ start["quaternion"]) == pytest.approx(1.0)


def test_only_an_observation_with_images_renders(widowx: tuple[SimplerSim, str]) -> None:
    sim, task = widowx
    sim.reset(task, 0)
    before = env_of(sim).renders
    sim.advance(Command(0, np.zeros(6), 1.0), 3 * sim.period_ns)
    assert not sim.observe(images=False).images and env_of(sim).renders == before
    sim.observe()
    assert env_of(sim).renders == before + 1


def test_a_twist_becomes_a_step_of_the_tool_and_a_gripper_of_minus_one_or_one(
        widowx: tuple[SimplerSim, str]) -> None:
    sim, task = widowx
    sim.reset(task, 0)
    sim.advance(None, sim.period_ns)
    sim.advance(Command(0, np.array([0.05, 0.0, -0.1, 0.0, 0.0, 0.5]), 0.2), sim.period_ns)
    sim.advance(None, sim.period_ns)
    first, second, third = env_of(sim).actions
    assert np.array_equal(first, [0, 0, 0, 0, 0, 0, 1])  # open until told otherwise
    assert second == pytest.approx([0.01, 0.0, -0.02, 0.0, 0.0, 0.1, -1.0])
    assert np.array_equal(third, [0, 0, 0, 0, 0, 0, -1])
    assert sim.time_ns == 3 * sim.period_ns == 600_000_000


def test_googles_gripper_sticks(google: SimplerSim) -> None:
    google.reset(CAN, 0)
    for opening in (1.0, 0.0, *[1.0] * 14, 1.0, 1.0):
        google.advance(Command(0, np.zeros(6), opening), google.period_ns)
    grippers = [action[6] for action in env_of(google).actions]
    assert grippers == [0.0, *[1.0] * 15, 0.0, 0.0]
    google.reset(CAN, 1)
    google.advance(Command(0, np.zeros(6), 0.0), google.period_ns)
    assert env_of(google).actions[-1][6] == 0.0


def test_scenes_are_the_published_starts(google: SimplerSim) -> None:
    google.reset(f"{CAN}/visual_matching/tabletop_colours_2", 7)
    env = env_of(google)
    assert isinstance(env, DoubleEnv)
    assert env.arguments["urdf_version"] == "recolor_tabletop_visual_matching_2" and env.arguments["lr_switch"]
    assert (env.arguments["sim_freq"], env.arguments["control_freq"]) == (513, 3)
    assert env.arguments["rgb_overlay_cameras"] == ["overhead_camera"] and env.rgb_overlay_img is not None
    options = env.resets[-1]
    assert options["seed"] is None and np.allclose(options["obj_init_options"]["init_xy"], [-0.2925, 0.2])
    assert np.allclose(options["robot_init_options"]["init_xy"], [0.35, 0.20])
    assert np.allclose(options["robot_init_options"]["init_rot_quat"], [0, 0, 0, 1])
    assert set(env._cameras) == {"overhead_camera"}
    google.reset("google_robot_move_near", 5)
    turned = env_of(google).resets[-1]
    assert turned["obj_init_options"] == {"episode_id": 5}
    assert turned["robot_init_options"]["init_rot_quat"] == pytest.approx([np.sin(0.045), 0, 0, np.cos(0.045)])


def test_a_variant_without_a_photo_has_none_and_the_shader_can_be_chosen(folder: Path, google: SimplerSim) -> None:
    google.reset("google_robot_open_top_drawer/variant_aggregation/cabinet_2", 0)
    arguments = env_of(google).arguments
    assert "rgb_overlay_path" not in arguments
    assert (arguments["station_name"], arguments["shader_dir"]) == ("mk_station2", "rt")
    google.world._shader = "ibl"
    google.reset("google_robot_open_top_drawer", 0)
    assert env_of(google).arguments["shader_dir"] == "ibl"
    google.reset(CAN, 0)
    assert "shader_dir" not in env_of(google).arguments


def test_an_environment_is_kept_for_its_variant_and_begins_as_a_new_one(google: SimplerSim) -> None:
    google.reset(CAN, 0)
    env = env_of(google)
    new = [{key: str(value) for key, value in reset.items()} for reset in env.resets]
    google.advance(Command(0, np.array([0.1, 0, 0, 0, 0, 0]), 1.0), google.period_ns)
    env.resets.clear()
    google.reset(CAN, 0)
    assert env_of(google) is env
    assert [{key: str(value) for key, value in reset.items()} for reset in env.resets] == new
    google.reset(CAN, 25)
    assert env_of(google) is not env and env.closed


def test_success_is_what_holds_after_the_last_step(widowx: tuple[SimplerSim, str]) -> None:
    sim, task = widowx
    up, down = (Command(0, np.array([0, 0, z, 0, 0, 0]), 1.0) for z in (0.05, -0.05))
    sim.reset(task, 0)
    sim.advance(up, 30 * sim.period_ns)
    assert sim.world.solved() and not sim.success()  # not yet the end
    sim.advance(down, 30 * sim.period_ns)
    assert not sim.success()  # done once, but not left done
    sim.reset(task, 0)
    sim.advance(up, 59 * sim.period_ns)
    assert not sim.success()
    sim.advance(up, sim.period_ns)
    assert sim.success()
    sim.advance(down, 60 * sim.period_ns)
    assert sim.success()  # what comes later does not count
    sim.reset(task, 0)
    assert not sim.success()


@pytest.mark.parametrize("chunk", [1, 4])
def test_an_episode_has_the_published_number_of_steps(widowx: tuple[SimplerSim, str], chunk: int) -> None:
    sim, task = widowx
    assert rollout(sim, RowPolicy(WIDOWX, STILL, chunk=chunk), WIDOWX, task, 0).reason == "TIME_LIMIT"
    assert len(env_of(sim).actions) == 60
    won = rollout(sim, RowPolicy(WIDOWX, RISING, chunk=chunk), WIDOWX, task, 0)
    assert (won.success, won.steps, won.reason) == (True, 60, "SUCCEEDED")


@pytest.mark.parametrize("chunk", [4, 10])
def test_two_instructions_are_one_episode(google: SimplerSim, chunk: int) -> None:
    policy = RowPolicy(GOOGLE, STILL, RISING, chunk=chunk)
    result = rollout(google, policy, GOOGLE, APPLE, 0)
    assert policy.instructions == ["open top drawer", "place apple into top drawer"]
    assert result.success and result.instruction == "; ".join(policy.instructions)
    actions = env_of(google).actions
    assert len(actions) == 200 and result.commands.shape == (result.steps, 7)
    moved = [bool(action[2]) for action in actions]
    assert moved == [False] * 101 + [True] * 99  # the environment goes on within its 101st step
    lost = rollout(google, RowPolicy(GOOGLE, RISING, -RISING * [1, 1, 101 / 99, 1, 1, 1, 1]), GOOGLE, APPLE, 0)
    assert not lost.success and lost.reason == "TIME_LIMIT"


def test_a_script_grasps_the_one_object_and_lets_go_above_the_other(widowx: tuple[SimplerSim, str]) -> None:
    sim, task = widowx
    result = rollout(sim, Expert(sim), WIDOWX, task, 0)
    assert result.success and result.steps == 60
    places = np.cumsum([action[:3] for action in env_of(sim).actions], 0) + env_of(sim).record["start"]["position"]
    grippers = np.array([action[6] for action in env_of(sim).actions])
    closed = np.flatnonzero(grippers < 0)
    assert np.linalg.norm(places[closed[0]] - SOURCE_M) < 0.005
    assert np.linalg.norm(places[closed[-1]][:2] - TARGET_M[:2]) < 0.005 and places[closed[-1]][2] > TARGET_M[2]
    assert len(closed) == closed[-1] - closed[0] + 1 and closed[-1] < 59


def test_a_task_without_a_script_is_refused_by_name(google: SimplerSim) -> None:
    refused = rollout(google, Expert(google), GOOGLE, CAN, 0)
    assert refused.reason == "INSTRUCTION_REFUSED" and "known: widowx_stack_cube" in refused.message


def test_the_world_waits_for_the_second_instruction(google: SimplerSim) -> None:
    episode = google.reset(APPLE, 0)
    assert episode.more and episode.time_limit_s == pytest.approx(101 / 3)
    google.advance(Command(0, np.array([0, 0, 0.03, 0, 0, 0]), 1.0), 105 * google.period_ns)
    assert len(env_of(google).actions) == 101 and google.time_ns == 105 * google.period_ns
    second = google.next_task()
    assert not second.more and second.time_limit_s == pytest.approx(99 / 3)
    with pytest.raises(VlaError, match="got no further instruction"):
        google.next_task()


def test_an_early_second_instruction_is_asked_of_the_environment(google: SimplerSim) -> None:
    google.reset(APPLE, 0)
    google.advance(None, 10 * google.period_ns)
    assert google.next_task().instruction == "place apple into top drawer"
    google.advance(Command(0, np.array([0, 0, FAR_M, 0, 0, 0]), 1.0), 190 * google.period_ns)
    assert google.success()


@pytest.mark.parametrize(("contract", "task", "rows"), [
    (WIDOWX, CARROT, [0.07, 0.07, 0.07, 0.39, 0.39, 0.39]),  # Octo's most, beyond RT-1-X's
    (GOOGLE, CAN, [1.0, 1.0, 1.0, np.pi / 2, np.pi / 2, np.pi / 2])])
def test_the_guard_passes_on_the_longest_published_steps(
        folder: Path, contract: RobotContract, task: str, rows: list[float]) -> None:
    """Also from one extreme to the other, and from one gripper position to the other."""
    class Swinging(RowPolicy):
        count = 0

        def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
            self.count += 1
            sign = (-1) ** self.count
            row = np.append(sign * np.array(rows), 0.5 + sign / 2)
            return ActionChunk(observation.stamp_ns, contract.action_dt_ns, row[None], 1, run_id)

    sim = SimplerSim(contract, double_world(folder))
    limited: list[bool] = []
    rollout(sim, Swinging(contract, STILL), contract, task, 0, 12 * sim.period_ns / 1e9,
            watch=lambda observation, decision: limited.append(any(decision.status.limited)))
    assert len(limited) == 12 and not any(limited)
    for action in env_of(sim).actions:
        assert np.abs(action[:6]) == pytest.approx(rows)


def test_refusals_name_what_was_got(google: SimplerSim) -> None:
    with pytest.raises(VlaError, match="call reset"):
        google.observe()
    with pytest.raises(VlaError, match="got no further instruction"):
        google.next_task()
    with pytest.raises(VlaError, match="did you mean 'google_robot_move_near'"):
        google.reset("google_robot_move_nera", 0)
    with pytest.raises(VlaError, match="seed: got -1"):
        google.reset(CAN, -1)
    google.reset(CAN, 0)
    with pytest.raises(VlaError, match="positive multiple of 333333333 ns, SIMPLER's control period \\(3 Hz\\)"):
        google.advance(None, 100_000_000)
    with pytest.raises(VlaError, match="6 finite numbers"):
        google.advance(Command(0, np.full(6, np.inf), 1.0), google.period_ns)
    assert not env_of(google).actions


@pytest.mark.parametrize(("changes", "words"), [
    ({"base_frame": "world"}, "base_frame: got world, expected base_link; use config/robots/simpler_widowx.yaml"),
    ({"control_rate_hz": 3}, "control_rate_hz: got 3.0, expected 5.0"),
    ({"joints": {"topic": "/joint_states", "names": ["waist"], "max_age_s": 1}}, r"joints.names: got \['waist'\]"),
    ({"cameras": {"overhead": {"topic": "/c", "width": 640, "height": 480, "max_age_s": 1}}}, "known: third_view"),
    ({"cameras": {"third_view": {"topic": "/c", "width": 224, "height": 224, "max_age_s": 1}}},
     "got 224x224 rgb8, expected 640x480 rgb8, as SIMPLER renders it")])
def test_a_contract_that_does_not_fit_is_refused_with_both_values(
        folder: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        SimplerSim(changed(WIDOWX, **changes), double_world(folder))


def test_closing_frees_every_world(folder: Path) -> None:
    sim = SimplerSim(WIDOWX, double_world(folder))
    environments = []
    for task in (CARROT, f"{CARROT}/twins"):
        sim.reset(task, 0)
        environments.append(env_of(sim))
    sim.close()
    assert all(env.closed for env in environments)

"""The bridge on the double: scenes, observations, actions, chains, and contracts that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from calvin_double import FAR_M, RECORD, DoubleTable, double_sim, open_double

from sim_bridges.calvin.conditions import RULES, TASKS
from sim_bridges.calvin.sequences import sequences
from sim_bridges.calvin.sim import JOINTS, PERIOD_NS, TASK_LIMIT_S, TASK_STEPS, CalvinSim
from sim_bridges.calvin.states import BLOCK_AT, start_numbers
from sim_bridges.chains import summarise_chains
from sim_bridges.rollout import rollout, rollout_chain
from vla_policy.contract import RobotContract, load_contract, parse_contract
from vla_policy.errors import ContractError, VlaError
from vla_policy.resources import find_contract
from vla_policy.types import ActionChunk, Command, Observation

RELATIVE, ABSOLUTE = (load_contract(find_contract(name)) for name in ("calvin", "calvin_absolute"))
RISING = np.array([0.0, 0.0, 0.002, 0.0, 0.0, 0.0, 1.0])
STILL = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])


class RowPolicy:
    """The same row in every chunk, by how many instructions came."""

    period_ns = PERIOD_NS

    def __init__(self, *rows: np.ndarray) -> None:
        self.rows = rows
        self.timings: dict[str, float] = {}
        self.instructions: list[str] = []

    def reset(self, instruction: str) -> None:
        self.instructions.append(instruction)

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        row = self.rows[min(len(self.instructions), len(self.rows)) - 1]
        return ActionChunk(observation.stamp_ns, PERIOD_NS, row[np.newaxis], 1, run_id)


@pytest.fixture
def sim() -> CalvinSim:
    return double_sim(RELATIVE)


def table_of(sim: CalvinSim) -> DoubleTable:
    table = sim.world.table
    assert isinstance(table, DoubleTable)
    return table


def changed(contract: RobotContract, **changes: object) -> RobotContract:
    return parse_contract(yaml.safe_load(contract.model_dump_json()) | changes, "test")


def test_every_task_has_a_scene_in_which_it_can_be_done(sim: CalvinSim) -> None:
    assert sim.tasks == TASKS
    for task in TASKS:
        episode = sim.reset(task, 3)
        assert (episode.task, episode.seed, episode.instruction) == (task, 3, task.replace("_", " "))
        holds_a_block = RULES[task][0].needs["grasped"] == (1,)
        assert sim.robot_obs[14] == (-1.0 if holds_a_block else 1.0)


def test_the_same_task_and_seed_give_the_same_scene_whatever_came_before(sim: CalvinSim) -> None:
    sim.reset("stack_block", 5)
    first = sim.robot_obs, sim.scene_obs, sim.observe().images["static"]
    sim.reset("open_drawer", 1)
    sim.advance(Command(0, np.full(6, 0.1), 0.0), PERIOD_NS)
    sim.reset("stack_block", 5)
    for one, other in zip(first, (sim.robot_obs, sim.scene_obs, sim.observe().images["static"]), strict=True):
        assert np.array_equal(one, other)
    assert table_of(sim).loads == 3


def test_a_block_in_the_drawer_lies_in_an_open_drawer(sim: CalvinSim) -> None:
    sim.reset("lift_blue_block_drawer", 0)
    assert sim.scene_obs[1] == 0.22
    assert sim.scene_obs[BLOCK_AT["blue_block"] + 2] == pytest.approx(0.362)


def test_an_observation_has_the_shapes_of_the_contract(sim: CalvinSim) -> None:
    sim.reset("open_drawer", 0)
    observation = sim.observe()
    assert {name: image.shape for name, image in observation.images.items()} == {
        "static": (200, 200, 3), "wrist": (84, 84, 3)}
    assert all(image.flags.c_contiguous and image.dtype == np.uint8 for image in observation.images.values())
    assert observation.joints.shape == (len(JOINTS),) and observation.joints[-1] == sim.robot_obs[6]
    assert np.array_equal(observation.joints[:7], sim.robot_obs[7:14])
    assert observation.pose.position == pytest.approx(RECORD["robot_obs"][:3])
    assert np.linalg.norm(observation.pose.quaternion) == pytest.approx(1.0)
    assert sim.observe(images=False).images == {}


def test_images_are_rendered_only_when_asked_for(sim: CalvinSim) -> None:
    sim.reset("open_drawer", 0)
    assert table_of(sim).cameras == []


def test_a_twist_is_a_relative_action_for_each_period_and_time_passes(sim: CalvinSim) -> None:
    sim.reset("open_drawer", 0)
    begin = sim.robot_obs[:3].copy()
    sim.advance(Command(0, np.array([0.3, 0.0, 0.0, 0.0, 0.0, 0.0]), 0.0), 2 * PERIOD_NS)
    assert sim.time_ns == 2 * PERIOD_NS
    assert sim.robot_obs[:3] - begin == pytest.approx([0.02, 0.0, 0.0])
    assert [action[6] for action in table_of(sim).actions] == [-1, -1]


def test_without_a_command_the_target_and_the_gripper_stay(sim: CalvinSim) -> None:
    sim.reset("open_drawer", 0)
    sim.advance(Command(0, np.zeros(6), 0.0), PERIOD_NS)
    sim.advance(None, PERIOD_NS)
    assert table_of(sim).actions[-1].tolist() == [0, 0, 0, 0, 0, 0, -1]


def test_an_absolute_contract_sends_poses_and_holds_the_last() -> None:
    sim = double_sim(ABSOLUTE)
    sim.reset("open_drawer", 0)
    sim.advance(None, PERIOD_NS)
    assert sim.robot_obs[:3] == pytest.approx(RECORD["robot_obs"][:3])
    pose = np.array([0.1, -0.2, 0.5, 1.0, 0.0, 0.0, 0.0])
    sim.advance(Command(0, pose, 1.0), PERIOD_NS)
    sim.advance(None, PERIOD_NS)
    position, quaternion, gripper = table_of(sim).actions[-1]
    assert np.array_equal(np.append(position, quaternion), pose) and gripper == 1


def test_the_guard_passes_on_the_longest_steps_of_calvin(sim: CalvinSim) -> None:
    """Whatever a published policy may ask for reaches the table unchanged, also from one extreme to the other."""
    rows = [np.array([*sign * np.array([0.02, 0.02, 0.02]), 0.0, 0.0, sign * 0.05, 0.5 + sign / 2])
            for sign in (1.0, -1.0)]

    class Swinging(RowPolicy):
        count = 0

        def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
            self.count += 1
            return ActionChunk(observation.stamp_ns, PERIOD_NS, rows[self.count % 2][np.newaxis], 1, run_id)

    limited: list[bool] = []
    rollout(sim, Swinging(STILL), RELATIVE, "close_drawer", 0, 15 * PERIOD_NS / 1e9,
            watch=lambda observation, decision: limited.append(any(decision.status.limited)))
    assert len(limited) == 15 and not any(limited)
    for action in table_of(sim).actions:
        assert np.abs(action[:3]) == pytest.approx(1.0) and abs(action[5]) == pytest.approx(1.0)


def test_the_oracle_is_asked_after_every_step_and_its_word_latches(sim: CalvinSim) -> None:
    sim.reset("open_drawer", 0)
    up, down = (Command(0, np.array([0.0, 0.0, z_m_s, 0.0, 0.0, 0.0]), 1.0) for z_m_s in (0.6, -0.6))
    sim.advance(up, 2 * PERIOD_NS)
    assert not sim.success()
    sim.advance(up, PERIOD_NS)
    sim.advance(down, 3 * PERIOD_NS)
    assert sim.success()
    sim.reset("open_drawer", 0)
    assert not sim.success()


def test_what_is_done_after_360_steps_does_not_count(sim: CalvinSim) -> None:
    sim.reset("open_drawer", 0)
    sim.advance(None, TASK_STEPS * PERIOD_NS)
    sim.advance(Command(0, np.array([0.0, 0.0, 0.6, 0.0, 0.0, 0.0]), 1.0), 4 * PERIOD_NS)
    assert not sim.success()


def test_an_episode_without_success_has_360_steps(sim: CalvinSim) -> None:
    result = rollout(sim, RowPolicy(STILL), RELATIVE, "open_drawer", 0, TASK_LIMIT_S)
    assert (result.steps, result.reason) == (TASK_STEPS, "TIME_LIMIT")


def test_a_chain_is_the_benchmarks_sequence(sim: CalvinSim) -> None:
    chain, sequence = sim.draw_chain(7), sequences([7])[0]
    assert tuple(step.task for step in chain.steps) == sequence.tasks and chain.start == sequence.state
    assert sim.draw_chain(1007).steps == chain.steps
    episode = sim.begin_chain(chain)
    assert episode.task == sequence.tasks[0]
    robot, scene = start_numbers(sequence.state)
    assert np.array_equal(sim.scene_obs, scene) and sim.robot_obs == pytest.approx(robot, abs=1e-6)


def test_a_chain_goes_on_where_the_last_task_ended_and_stops_at_the_first_failure(sim: CalvinSim) -> None:
    policy = RowPolicy(RISING, RISING, STILL)
    result = rollout_chain(sim, policy, RELATIVE, sim.draw_chain(3), TASK_LIMIT_S)
    assert result.solved == 2 and len(result.episodes) == 3
    assert [episode.steps for episode in result.episodes][2] == TASK_STEPS
    assert policy.instructions == [step.task.replace("_", " ") for step in result.chain.steps[:3]]
    rise_m = sim.robot_obs[2] - RECORD["robot_obs"][2]
    assert rise_m == pytest.approx(2 * FAR_M, abs=0.005) and table_of(sim).loads == 1
    assert summarise_chains([result])["average_length"] == 2.0


def test_a_chain_ends_with_its_last_task(sim: CalvinSim) -> None:
    assert rollout_chain(sim, RowPolicy(RISING), RELATIVE, sim.draw_chain(0), TASK_LIMIT_S).solved == 5
    with pytest.raises(VlaError, match="got no further task"):
        sim.next_task()


def test_refusals_name_what_was_got(sim: CalvinSim) -> None:
    with pytest.raises(VlaError, match="call reset"):
        sim.observe()
    with pytest.raises(VlaError, match="did you mean 'turn_on_led'"):
        sim.reset("turn_on_leds", 0)
    with pytest.raises(VlaError, match="seed: got -1"):
        sim.reset("turn_on_led", -1)
    with pytest.raises(VlaError, match="seed: got -1"):
        sim.draw_chain(-1)
    with pytest.raises(VlaError, match="call begin_chain"):
        sim.next_task()
    sim.reset("turn_on_led", 0)
    with pytest.raises(VlaError, match="positive multiple of 33333333 ns"):
        sim.advance(None, 10_000_000)
    with pytest.raises(VlaError, match="6 finite numbers"):
        sim.advance(Command(0, np.full(6, np.nan), 1.0), PERIOD_NS)
    with pytest.raises(VlaError, match="gripper nan"):
        sim.advance(Command(0, np.zeros(6), float("nan")), PERIOD_NS)


def test_sequences_are_refused_in_other_scenes() -> None:
    world = open_double()
    sim = CalvinSim(RELATIVE, lambda: type(world)(world.table, world.oracle, world.sentences, "B"))
    with pytest.raises(VlaError, match="scene B, expected scene D"):
        sim.begin_chain(sim.draw_chain(0))


@pytest.mark.parametrize(("changes", "words"), [
    ({"base_frame": "base_link"}, "base_frame: got base_link, expected world"),
    ({"control_rate_hz": 20}, "control_rate_hz: got 20.0, expected 30.0"),
    ({"joints": {"topic": "/joint_states", "names": ["a"], "max_age_s": 1}}, r"joints.names: got \['a'\]"),
    ({"cameras": {"front": {"topic": "/c", "width": 200, "height": 200, "max_age_s": 1}}}, "got 'front'; .*static"),
    ({"cameras": {"static": {"topic": "/c", "width": 224, "height": 200, "max_age_s": 1}}},
     "got 224x200 rgb8, expected 200x200"),
    ({"action": {"kind": "ee_delta", "rate_hz": 30,
                 "command": {"topic": "/t", "type": "geometry_msgs/msg/TwistStamped"}}}, "action.gripper: got None")])
def test_a_contract_that_does_not_fit_is_refused_with_both_values(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        double_sim(changed(RELATIVE, **changes))


def test_a_contract_without_the_wrist_camera_renders_one_image() -> None:
    camera = RELATIVE.cameras["static"].model_dump()
    sim = double_sim(changed(RELATIVE, cameras={"static": camera}))
    sim.reset("open_drawer", 0)
    assert set(sim.observe().images) == {"static"}


def test_closing_ends_the_physics_client_once(sim: CalvinSim) -> None:
    sim.reset("open_drawer", 0)
    table = table_of(sim)
    sim.close()
    sim.close()
    assert table.closed and table.cid == -1

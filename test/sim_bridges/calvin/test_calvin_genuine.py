"""The bridge on genuine CALVIN; skipped, saying so, where CALVIN_ROOT or pybullet is missing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest
from calvin_double import RECORD, open_double
from record_calvin import form

from sim_bridges.calvin.checkout import ROOT_VARIABLE, find_checkout
from sim_bridges.calvin.conditions import TASKS
from sim_bridges.calvin.experts import SCRIPTS, Expert
from sim_bridges.calvin.sim import PERIOD_NS, TASK_LIMIT_S, CalvinSim
from sim_bridges.calvin.states import start_numbers
from sim_bridges.calvin.world import close_table, open_checkout
from sim_bridges.rollout import rollout
from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.resources import find_contract
from vla_policy.types import Command

RELATIVE, ABSOLUTE = (load_contract(find_contract(name)) for name in ("calvin", "calvin_absolute"))


@pytest.fixture
def genuine(request: pytest.FixtureRequest) -> Iterator[CalvinSim]:
    import os

    if not os.environ.get(ROOT_VARIABLE):
        pytest.skip(f"{ROOT_VARIABLE} is not set; see docs/calvin.md")
    if find_spec("pybullet") is None:
        pytest.skip("pybullet is not installed; see scripts/setup_calvin.sh")
    sim = CalvinSim(getattr(request, "param", RELATIVE))
    yield sim
    sim.close()


def walk(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.append(rng.uniform(-1, 1, 6), rng.choice([-1.0, 1.0])) for _ in range(count)]


def test_record_genuine_and_double_have_one_form(genuine: CalvinSim) -> None:
    table, double = genuine.world.table, open_double().table
    for one in (table, double):
        one.load()
        robot, scene = start_numbers(genuine.draw_chain(0).start)
        observed = one.reset(robot_obs=robot, scene_obs=scene)
        assert form(one.get_info()) == RECORD["table"]["info"] | {"robot_info": form(one.get_info()["robot_info"])}
        assert form(one.get_info()["robot_info"]) | {"gripper_action": ""} == (
            RECORD["table"]["info"]["robot_info"] | {"gripper_action": ""})  # an int until the first action
        for name, numbers in RECORD["table"]["numbers"].items():
            assert (list(observed[name].shape), str(observed[name].dtype)) == (numbers["shape"], numbers["dtype"])
        for name, value in RECORD["table"]["robot"].items():
            assert getattr(one.robot, name) == value
        assert [body.name for body in one.scene.movable_objects] == RECORD["table"]["movable_objects"]
    assert {task: len(sentences) for task, sentences in genuine.world.sentences.items()} == RECORD["table"]["sentences"]


def test_relative_actions_through_the_bridge_are_those_of_the_bare_table(genuine: CalvinSim) -> None:
    chain = genuine.draw_chain(2)
    genuine.begin_chain(chain)
    through = []
    for action in walk(30):
        before = np.asarray(genuine.world.table.robot.target_orn).copy()
        twist = np.append(action[:3] * 0.02, _turn(before, action[3:6] * 0.05)) / (PERIOD_NS / 1e9)
        genuine.advance(Command(0, twist, (action[6] + 1) / 2), PERIOD_NS)
        through.append(np.append(genuine.robot_obs, genuine.scene_obs))
    image = genuine.observe().images["static"]
    genuine.close()
    bare = open_checkout(find_checkout()).table
    robot, scene = start_numbers(chain.start)
    bare.reset(robot_obs=robot, scene_obs=scene)
    for action, ours in zip(walk(30), through, strict=True):
        observed = bare.step(action)[0]
        theirs = np.append(observed["robot_obs"], observed["scene_obs"])
        assert np.allclose(theirs, ours, atol=1e-6)
    assert np.abs(observed["rgb_obs"]["rgb_static"].astype(int) - image).mean() < 0.01
    close_table(bare)


def _turn(euler: np.ndarray, step: np.ndarray) -> np.ndarray:
    from sim_bridges.calvin.actions import quaternion_from_euler
    from vla_policy.action.rotation import rotation_between

    return rotation_between(quaternion_from_euler(euler), quaternion_from_euler(euler + step))


def test_a_scene_does_not_depend_on_what_came_before(genuine: CalvinSim) -> None:
    def play() -> list[np.ndarray]:
        genuine.begin_chain(genuine.draw_chain(11))
        for action in walk(20):
            genuine.advance(Command(0, action[:6] * 0.5, (action[6] + 1) / 2), PERIOD_NS)
        return [genuine.robot_obs, genuine.scene_obs, genuine.observe().images["wrist"]]

    first = play()
    genuine.reset("stack_block", 0)
    for one, other in zip(first, play(), strict=True):
        assert np.array_equal(one, other)


def test_no_task_is_done_at_its_start(genuine: CalvinSim) -> None:
    for task in TASKS:
        assert genuine.reset(task, 0).instruction
        genuine.advance(None, 5 * PERIOD_NS)
        assert not genuine.success(), task


@pytest.mark.parametrize("genuine", [ABSOLUTE], indirect=True)
@pytest.mark.parametrize("task", SCRIPTS)
def test_scripted_experts_convince_the_genuine_oracle(genuine: CalvinSim, task: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    see = genuine.observe
    monkeypatch.setattr(genuine, "observe", lambda images: see(images=False))  # the experts look at nothing
    result = rollout(genuine, Expert(genuine), ABSOLUTE, task, 1, TASK_LIMIT_S)
    assert result.success and result.steps < 200


def test_a_second_table_in_one_process_is_refused(genuine: CalvinSim) -> None:
    genuine.reset("open_drawer", 0)
    with pytest.raises(VlaError, match="second table in one process"):
        open_checkout(find_checkout())

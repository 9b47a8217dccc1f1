"""The loop in one process: ticks, ends, and the guard's last word, on the tabletop with scripted policies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sim_bridges.registry import make_sim
from sim_bridges.results import EpisodeResult
from sim_bridges.rollout import Timing, rollout
from sim_bridges.sim import Sim
from vla_policy.action.safety import Decision
from vla_policy.contract import load_contract
from vla_policy.errors import InstructionError, VlaError
from vla_policy.execution import Execution
from vla_policy.resources import find_contract
from vla_policy.types import ActionChunk, Observation

CONTRACT = load_contract(find_contract("tabletop"))
ROWS, EXECUTE_ROWS = 8, 4


class ConstantPolicy:
    """The same row over and over; remembers what it saw."""

    period_ns = EXECUTE_ROWS * CONTRACT.action_dt_ns

    def __init__(self, row: list[float]) -> None:
        self.row = np.array(row)
        self.timings = {"model": 1.5}
        self.observations: list[Observation] = []
        self.instruction = ""

    def reset(self, instruction: str) -> None:
        self.instruction = instruction
        self.observations.clear()

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        self.observations.append(observation)
        values = np.tile(self.row, (ROWS, 1))
        return ActionChunk(observation.stamp_ns, CONTRACT.action_dt_ns, values, EXECUTE_ROWS, run_id)


RISING = [0.0, 0.0, 0.005, 0.0, 0.0, 0.0, 1.0]  # 0.1 m/s


@pytest.fixture(scope="module")
def sim() -> Iterator[Sim]:
    sim = make_sim("tabletop", CONTRACT)
    yield sim
    sim.close()


def test_an_episode_ends_at_its_time_limit_with_one_command_a_period(sim: Sim) -> None:
    policy = ConstantPolicy(RISING)
    result = rollout(sim, policy, CONTRACT, "lift_red_block", 3, time_limit_s=1.0)
    assert (result.reason, result.success, result.steps) == ("TIME_LIMIT", False, 20)
    assert result.commands.shape == result.requested.shape == (20, 7)
    assert "red block" in result.instruction == policy.instruction
    assert result.commands[-1, 2] == pytest.approx(0.1)
    assert result.latencies_ms == {"model": [1.5] * 5}


def test_the_policy_sees_images_at_its_ticks_only(sim: Sim) -> None:
    policy, seen = ConstantPolicy(RISING), []
    rollout(sim, policy, CONTRACT, "open_drawer", 3, 0.8, watch=lambda observation, decision: seen.append(observation))
    stamps = [observation.stamp_ns for observation in policy.observations]
    assert np.array_equal(np.diff(stamps), [policy.period_ns] * 3)
    assert [bool(observation.images) for observation in seen] == [True, False, False, False] * 4


def test_a_limit_between_two_ticks_ends_at_the_next(sim: Sim) -> None:
    assert rollout(sim, ConstantPolicy(RISING), CONTRACT, "open_drawer", 3, 0.5).steps == 12


def test_the_same_seed_gives_the_same_episode_whatever_came_before(sim: Sim) -> None:
    policy = ConstantPolicy([0.002, -0.001, 0.003, 0.0, 0.0, 0.01, 0.0])
    first = rollout(sim, policy, CONTRACT, "push_left", 8, 0.8)
    image = policy.observations[-1].images["wrist"]
    rollout(sim, policy, CONTRACT, "close_drawer", 1, 0.4)
    second = rollout(sim, policy, CONTRACT, "push_left", 8, 0.8)
    assert first.instruction == second.instruction
    assert np.array_equal(first.commands, second.commands)
    assert np.array_equal(policy.observations[-1].images["wrist"], image)


def test_what_the_guard_stops_ends_the_episode(sim: Sim) -> None:
    decisions: list[Decision] = []
    result = rollout(
        sim,
        ConstantPolicy([float("nan")] * 7),
        CONTRACT,
        "open_drawer",
        3,
        1.0,
        watch=lambda observation, decision: decisions.append(decision),
    )
    assert result.reason == "SAFETY_STOP"
    assert "finite" in result.message or "nan" in result.message.lower()
    assert result.steps == 0 and len(decisions) == 1


def test_what_is_asked_may_exceed_what_is_sent(sim: Sim) -> None:
    result = rollout(sim, ConstantPolicy([0.0, 0.0, 0.04, 0.0, 0.0, 0.0, 1.0]), CONTRACT, "open_drawer", 3, 0.4)
    assert result.requested[:, 2] == pytest.approx(0.8)
    assert result.commands[:, 2].max() <= CONTRACT.limits.linear_velocity_m_s + 1e-12


def test_an_instruction_that_cannot_be_read_moves_nothing(sim: Sim) -> None:
    policy = ConstantPolicy(RISING)

    def refuse(instruction: str) -> None:
        raise InstructionError(f"unknown words in '{instruction}'")

    policy.reset = refuse
    result = rollout(sim, policy, CONTRACT, "open_drawer", 3, 1.0)
    assert result.reason == "INSTRUCTION_REFUSED" and "unknown words" in result.message
    assert result.commands.shape == (0, 7)


class EagerSim:
    """A world that succeeds after three control periods."""

    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        self._left = 3

    def __getattr__(self, name: str) -> object:
        return getattr(self._sim, name)

    def advance(self, *command: object) -> None:
        self._left -= 1
        self._sim.advance(*command)

    def success(self) -> bool:
        return self._left <= 0


def test_success_ends_the_episode_at_once(sim: Sim) -> None:
    result = rollout(EagerSim(sim), ConstantPolicy(RISING), CONTRACT, "open_drawer", 3, 2.0)
    assert (result.success, result.reason, result.steps) == (True, "SUCCEEDED", 3)


def test_an_unknown_task_is_refused(sim: Sim) -> None:
    with pytest.raises(VlaError, match="did you mean 'open_drawer'"):
        rollout(sim, ConstantPolicy(RISING), CONTRACT, "open_drawr", 3, 1.0)


def delayed(
    sim: Sim, policy: ConstantPolicy, execution: Execution, delay_s: float, limit_s: float = 1.6
) -> EpisodeResult:
    timing = Timing(execution, round(delay_s * 1e9))
    return rollout(sim, policy, CONTRACT, "open_drawer", 3, limit_s, timing=timing)


def test_without_delay_every_mode_is_lockstep_bit_for_bit(sim: Sim) -> None:
    expected = rollout(sim, ConstantPolicy(RISING), CONTRACT, "open_drawer", 3, 0.8)
    for execution in (Execution.ASYNC, Execution.BLOCKING):
        found = delayed(sim, ConstantPolicy(RISING), execution, 0.0, 0.8)
        assert np.array_equal(found.commands, expected.commands) and found.steps == expected.steps


def test_a_delay_holds_the_first_command_back_and_no_other(sim: Sim) -> None:
    policy = ConstantPolicy(RISING)
    result = delayed(sim, policy, Execution.ASYNC, 0.2)
    assert (result.reason, result.steps, len(result.commands)) == ("TIME_LIMIT", 32, 28)
    stamps = [observation.stamp_ns for observation in policy.observations]
    assert np.array_equal(np.diff(stamps), [policy.period_ns] * 7)


def test_a_delay_longer_than_the_period_skips_ticks(sim: Sim) -> None:
    policy = ConstantPolicy(RISING)
    delayed(sim, policy, Execution.ASYNC, 0.25)
    stamps = [observation.stamp_ns for observation in policy.observations]
    assert set(np.diff(stamps)) == {250_000_000}


def test_a_chunk_that_is_over_when_it_arrives_stops_the_robot(sim: Sim) -> None:
    result = delayed(sim, ConstantPolicy(RISING), Execution.ASYNC, 0.4)
    assert result.reason == "SAFETY_STOP" and "too slow" in result.message


def test_blocking_moves_and_stands_still_in_turns(sim: Sim) -> None:
    result = delayed(sim, ConstantPolicy(RISING), Execution.BLOCKING, 0.4, limit_s=1.8)
    asked = result.requested[:, 2] > 0
    assert asked.tolist() == [True] * 4 + [False] * 8 + [True] * 4 + [False] * 8 + [True] * 4
    assert result.commands[8, 2] == 0.0

"""The evaluation sequences and start states, held to what the genuine functions gave."""

from __future__ import annotations

import numpy as np
import pytest
from calvin_double import RECORD

from sim_bridges.calvin.conditions import KEYS, KINDS, TASKS, outcomes, start_states
from sim_bridges.calvin.sequences import DIGEST, LENGTH, SEQUENCES, digest, sequences
from sim_bridges.calvin.states import fnv0_32, start_numbers
from vla_policy.errors import ConfigError


def test_the_first_hundred_are_those_of_the_genuine_sampler() -> None:
    drawn = [[list(sequence.state.values()), list(sequence.tasks)] for sequence in sequences(range(100))]
    assert drawn == RECORD["sequences"]


def test_all_thousand_have_the_golden_digest() -> None:
    drawn = sequences()
    assert digest(drawn) == DIGEST == "840cb992c69ce9b6"
    assert [sequence.index for sequence in drawn] == list(range(SEQUENCES))
    for sequence in drawn:
        assert len({KINDS[task] for task in sequence.tasks}) == LENGTH


def test_a_sequence_is_the_same_whichever_others_are_asked_for() -> None:
    assert sequences([731, 4]) == [sequences([731])[0], sequences([4])[0]]


def test_a_sequence_beyond_the_thousand_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sequence 1000: expected 0 \.\. 999"):
        sequences([1000])


def test_tasks_and_start_states_are_as_many_as_in_calvin() -> None:
    assert len(TASKS) == 34 and len(start_states()) == 192


def test_what_a_task_does_follows_from_what_holds() -> None:
    state = start_states()[0]
    assert state["drawer"] == "closed"
    assert outcomes(state, "open_drawer") == [state | {"drawer": "open"}]
    assert outcomes(state, "close_drawer") == []
    lifted = outcomes(state, "lift_pink_block_table")
    assert lifted == ([] if state["pink_block"] != "table" else [state | {"pink_block": "grasped", "grasped": 1}])


def test_all_192_start_states_are_the_genuine_ones_bit_for_bit() -> None:
    recorded = {tuple(values): scene for values, scene in RECORD["states"]}
    assert len(recorded) == 192
    for state in start_states():
        robot, scene = start_numbers(state)
        assert scene.tolist() == recorded[tuple(state[key] for key in KEYS)]
        assert robot.tolist() == RECORD["robot_obs"]


def test_the_hash_is_pyhashes_own() -> None:
    assert fnv0_32("test") == 3910690890


def test_the_numbers_of_a_state_are_not_shared() -> None:
    state = start_states()[0]
    start_numbers(state)[1][:] = 7.0
    start_numbers(state)[0][:] = 7.0
    assert np.array_equal(start_numbers(state)[0], RECORD["robot_obs"])
    assert not (start_numbers(state)[1] == 7.0).any()

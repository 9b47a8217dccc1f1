"""A bundle and observations in; out: the same chunks in every process, and a fault that never hides."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import bundle, observation

from vla_policy.checkpoint import save_bundle
from vla_policy.contract import parse_contract
from vla_policy.errors import ActionError, ConfigError, ContractError, InstructionError, ObservationError
from vla_policy.observation.proprioception import proprioception
from vla_policy.observation.resize import resize_image
from vla_policy.policy import Policy

STEPS = 6  # more than the history of 4

ROLL_OUT = """
import hashlib, sys
import numpy as np
from policies import observation
from vla_policy.policy import Policy
policy = Policy.load(sys.argv[1], "cpu")
policy.reset("lift the red block")
values = [policy.step(observation(index)).values for index in range(int(sys.argv[2]))]
print(hashlib.sha256(np.stack(values).tobytes()).hexdigest())
"""


@pytest.fixture
def policy() -> Policy:
    policy = Policy(bundle())
    policy.reset("lift the red block")
    return policy


def run(policy: Policy, steps: int = STEPS) -> np.ndarray:
    """Values of the chunks of the first observations."""
    return np.stack([policy.step(observation(index)).values for index in range(steps)])


def test_a_chunk_is_stamped_with_its_observation(policy: Policy) -> None:
    chunk = policy.step(observation(7), run_id=3)
    assert (chunk.stamp_ns, chunk.dt_ns) == (1_400_000_000, 50_000_000)
    assert (chunk.execute_rows, chunk.run_id) == (4, 3)
    assert chunk.values.shape == (8, 7) and chunk.values.dtype == np.float64
    assert set(np.unique(chunk.values[:, 6])) <= {0.0, 1.0}
    assert policy.period_ns == 200_000_000
    assert set(policy.timings) == {"preprocess", "model", "postprocess"} and min(policy.timings.values()) > 0


def test_two_processes_give_the_same_bits(policy: Policy, tmp_path: Path) -> None:
    """Whatever number of threads the process is given otherwise."""
    save_bundle(tmp_path / "bundle", policy.bundle)
    environment = os.environ | {"OMP_NUM_THREADS": "4", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ROLL_OUT, str(tmp_path / "bundle"), str(STEPS)]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert there.stdout.strip() == hashlib.sha256(run(policy).tobytes()).hexdigest()


def test_the_number_of_threads_is_given_back(policy: Policy) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(policy, 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def test_steps_are_the_windows_of_training(policy: Policy) -> None:
    """After more steps than the history holds, a step equals the model over the last window at once."""
    stepped, whole, config = run(policy), policy.bundle, policy.config
    window = [observation(index) for index in range(STEPS - config.history_length, STEPS)]
    images = np.stack([[resize_image(seen.images[name], 32) for name in config.cameras] for seen in window])
    felt = np.stack([proprioception(whole.contract, seen, config.proprioception_joints) for seen in window])
    ids, mask = whole.tokenizer.encode_batch(["lift the red block"], config.text_length)
    inputs = (images[None], whole.state_normalizer.apply(felt)[None], ids, mask)
    output = whole.model(*map(torch.from_numpy, inputs))
    expected = whole.action_normalizer.invert(output.arm_BWKA[0, -1].numpy())
    np.testing.assert_allclose(stepped[-1, :, :6], expected, atol=1e-7)


def test_each_frame_is_encoded_once(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = policy.bundle.model, []
    encode = model.encode_frame
    monkeypatch.setattr(model, "encode_frame", lambda *inputs: frames.append(1) or encode(*inputs))
    run(policy)
    assert len(frames) == STEPS


def test_reset_and_warm_up_forget_everything(policy: Policy) -> None:
    first = run(policy)
    policy.reset("lift the red block")
    assert np.array_equal(run(policy), first)
    policy.warm_up()
    policy.reset("lift the red block")
    assert np.array_equal(run(policy), first)


def test_the_instruction_counts(policy: Policy) -> None:
    first = run(policy)
    policy.reset("open the drawer")
    assert not np.array_equal(run(policy), first)


def test_steps_need_an_instruction() -> None:
    policy = Policy(bundle())
    with pytest.raises(InstructionError, match="call reset"):
        policy.step(observation(0))
    policy.warm_up()
    with pytest.raises(InstructionError, match="call reset"):
        policy.step(observation(0))


def test_an_unknown_instruction_is_refused_and_ends_the_run(policy: Policy) -> None:
    run(policy, 1)
    with pytest.raises(InstructionError, match="did you mean 'block'"):
        policy.reset("lift the blok")
    with pytest.raises(InstructionError, match="call reset"):
        policy.step(observation(1))


def test_a_missing_or_wrong_image_is_refused(policy: Policy) -> None:
    seen = observation(0)
    static_only = {"static": seen.images["static"]}
    with pytest.raises(ObservationError, match="camera 'wrist' .* got none.*check /camera/wrist/image_raw"):
        policy.step(dataclasses.replace(seen, images=static_only))
    small = dict(seen.images, wrist=seen.images["wrist"][:100])
    with pytest.raises(ObservationError, match=r"got uint8 \(100, 224, 3\), expected uint8 \(224, 224, 3\)"):
        policy.step(dataclasses.replace(seen, images=small))


def test_a_model_that_puts_out_no_numbers_is_refused(policy: Policy) -> None:
    with torch.no_grad():
        policy.bundle.model.head.decoder.layers[-1].bias[0] = torch.nan
    with pytest.raises(ActionError, match="row 0, column 'x' is nan"):
        policy.step(observation(0))


def test_the_gripper_remembers_across_chunks(policy: Policy) -> None:
    """Between the thresholds it stays as the last row that was meant to be played left it."""
    last = policy.bundle.model.head.decoder.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.view(8, 7)[:, 6] = torch.tensor([5.0, 5, 5, 5, -5, -5, -5, -5])
    assert policy.step(observation(0)).values[:, 6].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    with torch.no_grad():
        last.bias.view(8, 7)[:, 6] = -0.1
    assert policy.step(observation(1)).values[:, 6].tolist() == [1] * 8
    policy.reset("lift the red block")
    assert policy.step(observation(1)).values[:, 6].tolist() == [0] * 8


def test_a_robot_with_another_order_of_joints_is_served(policy: Policy) -> None:
    data = policy.contract.model_dump(mode="json")
    data["joints"]["names"] = list(reversed(data["joints"]["names"]))
    turned = Policy(policy.bundle, robot=parse_contract(data, "test"))
    turned.reset("lift the red block")
    seen = observation(0)
    turned_seen = dataclasses.replace(seen, joints=seen.joints[::-1])
    assert np.array_equal(turned.step(turned_seen).values, policy.step(seen).values)


def test_a_robot_that_does_not_fit_and_a_device_that_is_not_there_are_refused() -> None:
    whole = bundle()
    data = whole.contract.model_dump(mode="json") | {"tool_frame": "flange"}
    with pytest.raises(ContractError, match="bundle tcp, robot flange"):
        Policy(whole, robot=parse_contract(data, "test"))
    with pytest.raises(ConfigError, match="use auto, cpu or cuda"):
        Policy(whole, device="warp")
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        Policy(whole, dtype="bf16")


def test_bfloat16_stays_near_float32(policy: Policy) -> None:
    half = Policy(policy.bundle, dtype="bfloat16")
    half.reset("lift the red block")
    scale = np.ptp(policy.bundle.action_normalizer.invert([[-1.0] * 6, [1.0] * 6]), axis=0)
    difference = (half.step(observation(0)).values - policy.step(observation(0)).values)[:, :6] / scale
    assert 0 < np.abs(difference).max() < 0.1

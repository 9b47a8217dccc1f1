"""Every backbone's twin and every engine mode in; out: the plain model's actions, alone and in a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from policies import observation
from twin_models import LENGTH, SENTENCES, TOLERANCE, WINDOW, frames, plain, run_engine, twin

from vla_policy.engine import Engine, EngineOptions
from vla_policy.engine.options import engine_options
from vla_policy.errors import ConfigError, EngineError, ObservationError
from vla_policy.model.registry import BACKBONES
from vla_policy.policy import Policy, step_together

STEPS = WINDOW + 2  # the window slides


@pytest.mark.parametrize("mode", ["eager", "graph"])  # on a CPU graph means static shapes, run eagerly
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_engine_says_what_the_model_says(backbone: str, mode: str) -> None:
    made = twin(backbone)
    arm, gripper = plain(made, STEPS)
    engine, actions = run_engine(made, EngineOptions(mode=mode), STEPS)
    np.testing.assert_allclose(actions[-1].arm[0], arm, **TOLERANCE)
    np.testing.assert_allclose(actions[-1].gripper[0], gripper, **TOLERANCE)
    assert engine.modes == {"frame": "eager", "window": "eager"}
    assert [(fallback.part, fallback.wanted) for fallback in engine.fallbacks] == (
        [("frame", "graph"), ("window", "graph")] if mode == "graph" else [])


@pytest.mark.parametrize("changes", [
    {"formulation": "interleaved", "action_head": "fc", "head_options": {}},
    {"formulation": "video", "action_head": "discrete", "action_space": "discrete", "head_options": {}},
    {"action_head": "gpt", "head_options": {"width": 16, "layers": 1}}, {"action_head": "flow", "head_options": {}},
    {"action_head": "diffusion", "head_options": {}}])
def test_every_formulation_and_head(changes: dict[str, Any]) -> None:
    made = twin("kosmos", **changes)
    arm, gripper = plain(made, STEPS)
    _, actions = run_engine(made, EngineOptions(mode="graph"), STEPS)
    np.testing.assert_allclose(actions[-1].arm[0], arm, **TOLERANCE)
    np.testing.assert_allclose(actions[-1].gripper[0], gripper, **TOLERANCE)


@pytest.mark.parametrize("backbone", ["tiny", "kosmos", "paligemma", "florence2"])
def test_robots_stepped_together_get_what_each_gets_alone(backbone: str) -> None:
    """Other instructions, other frames, and one that began later."""
    made, robots = twin(backbone), len(SENTENCES)
    engine = Engine(made.model)
    sessions = [engine.session() for _ in SENTENCES]
    images, states = frames(robots, STEPS)
    for session, sentence in zip(sessions, SENTENCES, strict=True):
        engine.begin(session, *made.tokenizer.encode(sentence, LENGTH))
    for step in range(STEPS):
        if step == 2:
            engine.begin(sessions[1], *made.tokenizer.encode(SENTENCES[1], LENGTH))
        together = engine.step(sessions, [list(robot) for robot in images[step]], states[step])
    assert [session.frames for session in sessions] == [WINDOW, STEPS - 2, WINDOW]
    for robot, sentence in enumerate(SENTENCES):
        alone = engine.session()
        engine.begin(alone, *made.tokenizer.encode(sentence, LENGTH))
        for step in range(2 if robot == 1 else 0, STEPS):
            actions = engine.step([alone], [list(images[step, robot])], [states[step, robot]])
        np.testing.assert_allclose(together.arm[robot], actions.arm[0], **TOLERANCE)
        np.testing.assert_allclose(together.gripper[robot], actions.gripper[0], **TOLERANCE)


def test_policies_step_together_and_a_wrong_one_stands_alone() -> None:
    first = Policy(twin(image_size=64))
    second, third = first.sibling(), first.sibling()
    for policy in (first, second):
        policy.reset(SENTENCES[0])
    alone = first.sibling()
    alone.reset(SENTENCES[0])
    chunks = step_together([first, third, second], [observation(1), observation(2), observation(3)], [4, 5, 6])
    assert "call reset" in str(chunks[1]) and third.history_frames == 0
    assert (chunks[0].run_id, chunks[2].run_id) == (4, 6)
    np.testing.assert_allclose(chunks[2].values, alone.step(observation(3)).values, atol=1e-5)
    assert second.timings["model"] > 0


@pytest.mark.parametrize("backbone", ["tiny", "kosmos"])
def test_a_compiled_model_says_the_same(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for any compiler; the one that makes machine code is left out, for it takes long."""
    compiled, compile_ = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(options) or compile_(
        function, backend="eager", **options))
    made = twin(backbone)
    arm, _ = plain(made, STEPS)
    engine, actions = run_engine(made, EngineOptions(mode="compile"), STEPS)
    layers = len(made.model.backbone.vision_layers) + len(made.model.backbone.text_layers)
    assert compiled == [{"dynamic": False}] * layers and layers >= 4
    assert engine.modes == {"frame": "compile", "window": "compile"} and engine.fallbacks == []
    np.testing.assert_allclose(actions[-1].arm[0], arm, **TOLERANCE)


def test_exhausted_memory_is_said_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the warm-up and later; the engine goes on when there is room again."""
    policy = Policy(twin(image_size=64))
    encode = policy.bundle.model.encode_frame

    def exhausted(*inputs: torch.Tensor) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(policy.bundle.model, "encode_frame", exhausted)
    with pytest.raises(EngineError, match=r"out of memory at a step of 1 robots.*2\.00 GiB.*lower history_length"):
        policy.warm_up()
    policy.reset(SENTENCES[0])
    with pytest.raises(EngineError, match="dtype bfloat16 or int8"):
        policy.step(observation(0))
    monkeypatch.setattr(policy.bundle.model, "encode_frame", encode)
    assert policy.step(observation(0)).values.shape == (8, 7)


def test_images_of_another_size_or_number_are_refused() -> None:
    made = twin()
    engine = Engine(made.model)
    session = engine.session()
    engine.begin(session, *made.tokenizer.encode(SENTENCES[0], LENGTH))
    for images in ([np.zeros((32, 48, 3), np.uint8)] * 2, [np.zeros((32, 32, 3), np.uint8)]):
        with pytest.raises(ObservationError, match=r"expected 2 of \(32, 32, 3\).*configured again"):
            engine.step([session], [images], [np.zeros(10, np.float32)])
    assert session.frames == 0


def test_images_may_be_resized_on_the_device() -> None:
    made = twin(image_size=64)
    host, device = Policy(made), Policy(made, resize="device")
    for policy in (host, device):
        policy.reset(SENTENCES[0])
        policy.step(observation(0))
    chunks = [policy.step(observation(1)).values for policy in (host, device)]
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-4)


@pytest.mark.parametrize("word, expected", [({"mode": "graf"}, "engine: got 'graf'; did you mean 'graph'"),
                                            ({"dtype": "int4"}, "dtype: got 'int4'; did you mean 'int8'"),
                                            ({"resize": "gpu"}, "resize: got 'gpu'; known: host, device")])
def test_unknown_words_are_refused(word: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        engine_options(**word)
    assert expected in str(refusal.value)

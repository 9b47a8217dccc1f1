"""Functions that cannot be compiled or captured in; out: the plain function and one named reason."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from vla_policy.engine import runners
from vla_policy.engine.runners import CompiledLayers, Fallback, Runner

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # no runner here touches a GPU: the recording is replaced


def double(part: Tensor) -> tuple[Tensor, ...]:
    return (2 * part,)


@pytest.fixture
def told() -> list[Fallback]:
    return []


def test_graphs_need_a_gpu_and_that_is_told_once(told: list[Fallback], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vla_policy.engine"):
        runner = Runner("frame", double, "graph", CPU, told.append)
        for _ in range(3):
            assert runner(torch.ones(2))[0].tolist() == [2.0, 2.0]
    assert runner.mode == "eager" and len(told) == len(caplog.records) == 1
    assert str(told[0]) == "engine graph: frame runs eager: CUDA graphs need a GPU, the model is on cpu"


def test_one_recording_for_every_shape(told: list[Fallback], monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []
    monkeypatch.setattr(runners, "record", lambda function, inputs, pool: recorded.append(
        (inputs[0].shape, pool)) or function)
    runner = Runner("frame", double, "graph", GPU, told.append, pool="pool")
    for size in (2, 3, 2, 3):
        assert runner(torch.ones(size))[0].shape == (size,)
    assert recorded == [(torch.Size([2]), "pool"), (torch.Size([3]), "pool")]
    assert runner.mode == "graph" and told == []


def test_what_cannot_be_captured_runs_eagerly(told: list[Fallback], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    monkeypatch.setattr(runners, "record", refuse)
    runner = Runner("frame", double, "graph", GPU, told.append)
    assert [runner(torch.ones(size))[0].sum().item() for size in (1, 1, 2)] == [2.0, 2.0, 4.0]
    assert told == [Fallback("frame", "graph", "eager", "its kernels cannot be captured: RuntimeError: operation not "
                                                        "permitted when stream is capturing")]


def test_what_does_not_compile_runs_as_it_is(told: list[Fallback], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Tensor) -> None:
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    layer = nn.Linear(1, 1)
    runner = Runner("window", lambda part: (layer(part),), "compile", CPU, told.append, layers=CompiledLayers([layer]))
    assert runner.mode == "compile"
    expected = layer(torch.ones(1)).item()
    assert [runner(torch.ones(1))[0].item() for _ in range(3)] == [expected] * 3
    assert told == [Fallback("window", "compile", "eager", "RuntimeError: no C++ compiler was found")]
    assert runner.mode == "eager" and "forward" not in vars(layer)


def test_layers_are_compiled_for_the_engine_alone(told: list[Fallback], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda part: 2 * function(part))
    layer = nn.Identity()
    runner = Runner("frame", lambda part: (layer(part),), "compile", CPU, told.append, layers=CompiledLayers([layer]))
    assert [runner(torch.ones(1))[0].item() for _ in range(3)] == [1.0, 2.0, 2.0]  # the first fills what models keep
    assert layer(torch.ones(1)).item() == 1.0 and told == []


def test_a_fault_of_the_model_is_no_fault_of_the_compiler(told: list[Fallback]) -> None:
    def wrong(part: Tensor) -> tuple[Tensor, ...]:
        raise ValueError("the model is wrong")

    runner = Runner("window", wrong, "compile", CPU, told.append, layers=CompiledLayers([]))
    for _ in range(2):
        with pytest.raises(ValueError, match="the model is wrong"):
            runner(torch.ones(1))
    assert told == []

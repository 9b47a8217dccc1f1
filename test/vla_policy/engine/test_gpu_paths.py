"""What only a GPU runs, with stand-ins for torch.cuda: order of calls, what is copied where, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vla_policy.engine.runners import Fallback, Runner
from vla_policy.engine.transfer import Transfer

GPU = torch.device("cuda")


class FakeStream:
    """A stream that has nothing to wait for."""

    def wait_stream(self, other: FakeStream) -> None:
        assert isinstance(other, FakeStream)

    def synchronize(self) -> None:
        FakeGpu.calls.append("wait")


class FakeGpu:
    """Records what runs between the beginning and the end of a capture, and runs it again when replayed."""

    calls: list[str]
    capturing: FakeGpu | None
    refuses: bool

    def __init__(self) -> None:
        self.again: list[Callable[[], None]] = []

    def replay(self) -> None:
        FakeGpu.calls.append("replay")
        for run in self.again:
            run()


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    @contextmanager
    def capture(graph: FakeGpu, pool: Any, capture_error_mode: str) -> Iterator[None]:
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        FakeGpu.capturing = graph
        yield
        FakeGpu.capturing = None
        if FakeGpu.refuses:
            raise RuntimeError("operation would make the legacy stream depend on a capturing blocking stream")

    empty, empty_like = torch.empty, torch.empty_like
    FakeGpu.calls, FakeGpu.capturing, FakeGpu.refuses = [], None, False
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGpu)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: FakeStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: FakeGpu.calls.append("empty"))
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: empty(shape, dtype=dtype))
    monkeypatch.setattr(torch, "empty_like", lambda part, device: empty_like(part))
    yield


def double(part: Tensor) -> tuple[Tensor, ...]:
    FakeGpu.calls.append("run")
    result = torch.zeros_like(part)

    def kernel() -> None:
        torch.mul(part, 2, out=result)

    kernel()
    if FakeGpu.capturing is not None:
        FakeGpu.capturing.again.append(kernel)
    return (result,)


def test_a_recording_is_replayed_on_new_inputs() -> None:
    told: list[Fallback] = []
    runner = Runner("frame", double, "graph", GPU, told.append, pool="pool")
    assert [runner(torch.tensor([value]))[0].item() for value in (1.0, 5.0, 7.0)] == [2.0, 10.0, 14.0]
    assert FakeGpu.calls.count("replay") == 3 and FakeGpu.calls.count("run") == 5  # three warm, one aside, one captured
    assert FakeGpu.calls[-2:] == ["replay", "replay"] and told == []


def test_a_refused_capture_runs_eagerly_from_there_on() -> None:
    told: list[Fallback] = []
    FakeGpu.refuses = True
    runner = Runner("frame", double, "graph", GPU, told.append, pool="pool")
    assert [runner(torch.tensor([value]))[0].item() for value in (1.0, 5.0)] == [2.0, 10.0]
    assert "replay" not in FakeGpu.calls and "empty" in FakeGpu.calls
    assert len(told) == 1 and "legacy stream" in told[0].reason


def test_uploads_fill_the_same_buffers_and_downloads_are_copies() -> None:
    transfer = Transfer(GPU)
    images = [[np.full((2, 2, 3), 10 * robot + camera, np.uint8) for camera in range(2)] for robot in range(3)]
    first = transfer.upload("images", images)
    assert first.shape == (3, 2, 2, 2, 3) and first.dtype is torch.uint8 and first[2, 1].unique().tolist() == [21]
    again = transfer.upload("images", images[:3])
    assert again.data_ptr() == first.data_ptr() != transfer.upload("images", images[:1]).data_ptr()
    states = transfer.upload("state", np.arange(6, dtype=np.float32).reshape(3, 2))
    assert states.dtype is torch.float32 and states.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert FakeGpu.calls == []  # nothing was waited for
    kept, _ = transfer.download([states, first])
    transfer.download([states + 1, first])
    assert kept.tolist() == [[0, 1], [2, 3], [4, 5]] and FakeGpu.calls == ["wait", "wait"]

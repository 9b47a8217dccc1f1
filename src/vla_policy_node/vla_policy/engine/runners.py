"""A function of tensors in, the same function out, run faster: its layers compiled, or replayed as a CUDA graph.

What cannot be captured or compiled runs in the next simpler way, with a reason that is told once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vla_policy.engine.options import EngineMode

LOGGER = logging.getLogger("vla_policy.engine")
Function = Callable[..., tuple[Tensor, ...]]
Replay = Callable[..., tuple[Tensor, ...]]
WARM_RUNS = 3  # before a capture: libraries choose kernels and take their workspaces in the first ones
MOST_SHAPES = 64  # compiled variants of one layer: batch sizes, and what tells layers of a kind apart
MAX_REASON = 300  # characters


@dataclass(frozen=True, slots=True)
class Fallback:
    """part: of the model, e.g. `frame`. wanted, used: kinds of engine. reason: one sentence."""

    part: str
    wanted: EngineMode
    used: EngineMode
    reason: str

    def __str__(self) -> str:
        return f"engine {self.wanted}: {self.part} runs {self.used}: {self.reason}"


def reason_of(problem: BaseException) -> str:
    """The kind and first line of an error."""
    lines = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {lines[0]}"[:MAX_REASON]


class CompiledLayers:
    """The layers of a model, each compiled by itself while `on`: layers of a kind share their machine code, so that it
    takes seconds where the whole model takes minutes. What stands between layers runs as it is.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._compiled = [(layer, torch.compile(layer.forward, dynamic=False)) for layer in layers]

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within it the model's layers are the compiled ones; whoever else runs the model finds it as it was."""
        for layer, forward in self._compiled:
            layer.forward = forward
        try:
            with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
                yield
        finally:
            for layer, _ in self._compiled:
                del layer.forward  # the class's own shows again


class Runner:
    """One function, in the fastest way that was asked for and works here."""

    def __init__(self, part: str, function: Function, mode: EngineMode, device: torch.device,
                 told: Callable[[Fallback], None], pool: Any = None, layers: CompiledLayers | None = None) -> None:
        """told: hears of every fall-back. pool: of CUDA graph memory, shared by the parts of a model, which never
        run at once. layers: to compile in mode compile.
        """
        self.part = part
        self._function = function
        self._told = told
        self._replays: dict[Any, Replay] = {}
        self._begun = False
        self._pool = pool
        self._wanted = mode
        self._graphs = mode != "eager" and device.type == "cuda"
        self._layers = layers if mode == "compile" else None
        if mode == "graph" and not self._graphs:
            self._fall_back("eager", f"CUDA graphs need a GPU, the model is on {device}")

    @property
    def mode(self) -> EngineMode:
        """How it runs now."""
        return "compile" if self._layers is not None else "graph" if self._graphs else "eager"

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's result; in graph mode it stays valid until the next call of a part of this model."""
        if not self._graphs:
            return self._run(*inputs)
        shapes = tuple((part.shape, part.dtype) for part in inputs)
        if shapes not in self._replays:
            self._replays[shapes] = self._record(inputs)
        return self._replays[shapes](*inputs)

    def _run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self._layers is None or not self._begun:
            self._begun = True  # what a model makes once and keeps is made by itself, not by a compiler's trace
            return self._function(*inputs)
        try:
            with self._layers.on():
                return self._function(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # noqa: BLE001 - compilers fail in every way; the model itself may be sound
            self._layers = None
            result = self._function(*inputs)  # raises, where it was the model
            self._fall_back("graph" if self._graphs else "eager", reason_of(problem))
            return result

    def _record(self, inputs: tuple[Tensor, ...]) -> Replay:
        for _ in range(WARM_RUNS):
            self._run(*inputs)  # raises what is wrong with the inputs or the model
        try:
            return record(self._run, inputs, self._pool)
        except (RuntimeError, NotImplementedError) as problem:  # torch's ways of refusing to capture; OutOfMemory too
            self._graphs = False
            torch.cuda.empty_cache()
            self._fall_back(self.mode, f"its kernels cannot be captured: {reason_of(problem)}")
            return self._run

    def _fall_back(self, used: EngineMode, reason: str) -> None:
        fallback = Fallback(self.part, self._wanted, used, reason)
        LOGGER.warning("%s", fallback)
        self._told(fallback)


def record(function: Function, inputs: tuple[Tensor, ...], pool: Any) -> Replay:
    """Capture one call as a CUDA graph. Raises: RuntimeError where something in it cannot be captured."""
    fixed = [part.clone() for part in inputs]
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(torch.cuda.current_stream()):  # a refused capture would leave another stream behind
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            function(*fixed)
        torch.cuda.current_stream().wait_stream(aside)
        # Other threads (a camera's, another policy's) may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            outputs = function(*fixed)

    def replay(*new: Tensor) -> tuple[Tensor, ...]:
        for kept, part in zip(fixed, new, strict=True):
            kept.copy_(part, non_blocking=True)
        graph.replay()
        return outputs

    return replay

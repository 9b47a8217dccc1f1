"""Section `floor`: what this very machine cannot beat: the bytes of a step over its bandwidth, the sums over its rate.

The weights of the layers that run must be read once, and their products summed once; the larger of the two times is the
floor. Activations, launches and the image's way to the device are left out, so nothing reaches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vla_policy.bench.cases import Settings, build, full_session, make_engine
from vla_policy.bench.timing import measure
from vla_policy.engine import Engine
from vla_policy.engine.engine import CPU_THREADS
from vla_policy.engine.quantised import Fp8Linear
from vla_policy.model.vla import VLAModel

GIB = 2**30
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**31}
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}


def run(settings: Settings) -> dict[str, Any]:
    """Bandwidth, rate, bytes and FLOPs of a step, the floor, and how often the first kind of engine takes it."""
    model = build(settings.case, settings.device, settings.dtype)
    engine = make_engine(model, settings, "eager")
    weight_bytes, flops = step_cost(engine, settings)
    with cpu_threads(settings.device):
        bytes_per_s = bandwidth(settings.device, settings.seconds / 2)
        flops_per_s = matmul_rate(settings.device, settings.dtype, settings.seconds / 2)
    floor_ms = 1e3 * max(weight_bytes / bytes_per_s, flops / flops_per_s)
    fastest = make_engine(model, settings, settings.modes[-1])
    session, source = full_session(fastest, settings.case)

    def step() -> None:
        images, state = next(source)
        fastest.step([session], [images], [state])

    timing = measure(step, settings.device, settings.seconds)
    lines = [f"bandwidth {bytes_per_s / 1e9:.1f} GB/s, products {flops_per_s / 1e12:.3f} TFLOP/s in {settings.dtype}",
             f"a step reads {weight_bytes / 1e6:.1f} MB of weights ({1e3 * weight_bytes / bytes_per_s:.3f} ms) and "
             f"sums {flops / 1e9:.2f} GFLOP ({1e3 * flops / flops_per_s:.3f} ms)",
             f"floor {floor_ms:.3f} ms; {settings.modes[-1]} takes {timing.p50_ms:.3f} ms, "
             f"{timing.p50_ms / floor_ms:.1f} times the floor"]
    return {"bytes_per_s": bytes_per_s, "flops_per_s": flops_per_s, "weight_bytes": weight_bytes, "flops": flops,
            "floor_ms": floor_ms, "mode": settings.modes[-1], "step": timing.as_dict(),
            "times_floor": timing.p50_ms / floor_ms, "lines": lines}


@contextmanager
def cpu_threads(device: str) -> Iterator[None]:
    """As many threads as the engine takes."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(CPU_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bandwidth(device: str, seconds: float) -> float:
    """Bytes a second that a copy reads and writes."""
    size = COPIED_BYTES[torch.device(device).type]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (measure(lambda: target.copy_(source), device, seconds).p50_ms / 1e3)


def matmul_rate(device: str, dtype: str, seconds: float) -> float:
    """FLOPs a second of a large product in the number type that the model's sums are in."""
    side = MATRIX_SIDE[torch.device(device).type]
    if dtype == "fp8":
        product: Any = Fp8Linear(nn.Linear(side, side, bias=False, device=device, dtype=torch.bfloat16))
        left = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    else:
        number = torch.float32 if dtype == "float32" or (dtype == "int8" and device == "cpu") else torch.bfloat16
        left, right = (torch.randn(side, side, device=device).to(number) for _ in range(2))
        product = right.matmul
    with torch.inference_mode():
        return 2 * side**3 / (measure(lambda: product(left), device, seconds).p50_ms / 1e3)


def step_cost(engine: Engine, settings: Settings) -> tuple[int, int]:
    """Bytes of the weights that a step on a full window reads, and its FLOPs."""
    session, source = full_session(engine, settings.case, extra=0)
    images, state = next(source)
    read: dict[int, int] = {}
    hooks = [module.register_forward_pre_hook(lambda module, _: read.update(_own_bytes(module)))
             for module in engine.model.modules() if not isinstance(module, nn.Embedding)]
    try:
        with FlopCounterMode(display=False) as counter:
            engine.step([session], [images], [state])
    finally:
        for hook in hooks:
            hook.remove()
    return sum(read.values()), counter.get_total_flops() + _recurrent_flops(engine.model, settings.case.window)


def _own_bytes(module: nn.Module) -> dict[int, int]:
    parts: list[Tensor] = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return {part.data_ptr(): part.numel() * part.element_size() for part in parts}


def _recurrent_flops(model: VLAModel, window: int) -> int:
    """An LSTM's, which the counter does not know: two for every weight and frame."""
    return sum(2 * window * weight.numel() for module in model.modules() if isinstance(module, nn.LSTM)
               for weight in module.parameters() if weight.dim() == 2)

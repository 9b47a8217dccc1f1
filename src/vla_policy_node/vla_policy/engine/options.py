"""Words of a user in, a checked choice of how a model is run out: device, number type, kind of engine."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from vla_policy.errors import ConfigError, nearest
from vla_policy.strict import StrictModel

EngineMode = Literal["eager", "compile", "graph"]
NumberType = Literal["float32", "bfloat16", "int8", "fp8"]
Resize = Literal["host", "device"]


class EngineOptions(StrictModel):
    """How a model is run.

    mode: eager runs operator after operator. graph replays the same kernels as a CUDA graph. compile fuses those of
        each layer by `torch.compile` first; on a GPU the fused ones are replayed as a CUDA graph too.
    dtype: of the weights and sums; int8 and fp8 are weights of the backbone's linear layers, rounded.
    resize: where images are made square: host is the function of training; device does the same on the model's
        device, up to one grey level (see `vla_policy.observation.device_resize`).
    """

    mode: EngineMode = "eager"
    dtype: NumberType = "float32"
    resize: Resize = "host"


def engine_options(mode: str = "eager", dtype: str = "float32", resize: str = "host") -> EngineOptions:
    """Options from plain words. Raises: ConfigError naming the nearest word."""
    for what, got, known in (("engine", mode, EngineMode), ("dtype", dtype, NumberType), ("resize", resize, Resize)):
        if got not in get_args(known):
            raise ConfigError(f"{what}: got '{got}'; {nearest(got, get_args(known))}")
    return EngineOptions(mode=mode, dtype=dtype, resize=resize)


def choose_device(name: str) -> str:
    """`auto` is the GPU where there is one. Raises: ConfigError for a device that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise ConfigError(f"device: got '{name}', which does not work here ({str(problem).splitlines()[0]}); "
                          "use auto, cpu or cuda") from None
    return name

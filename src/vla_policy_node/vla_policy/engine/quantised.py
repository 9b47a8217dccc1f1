"""A model in, the same model in another number type out: bfloat16, or linear layers of rounded weights.

int8: a byte a weight, one scale a row; what is multiplied keeps its own number type. It halves memory, and stands for
what the device computes in anyway. fp8: weights and inputs in e4m3, a scale a row, multiplied by the GPU's own units.
Both round the backbone's linear layers only: heads, embeddings and norms are small and delicate. bfloat16 is the
backbone's and that of a recurrent head; models that do not cast what comes in run by autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.engine.options import NumberType
from vla_policy.errors import ConfigError
from vla_policy.model.vla import VLAModel

FP8 = torch.float8_e4m3fn
FP8_CAPABILITY = (9, 0)  # Hopper: a scale a row
FP8_MULTIPLE = 16  # sides of a matrix that the GPU's units take
SMALLEST = 1e-12  # a row of zeros must not divide by zero


def prepare_weights(model: VLAModel, device: torch.device, dtype: NumberType) -> VLAModel:
    """Move `model` to the device and turn its weights, in place. Raises: ConfigError where the device lacks `dtype`."""
    if dtype == "fp8":
        check_fp8(device)
    backbone = model.backbone
    if dtype in ROUNDED:
        replace_linears(backbone.vlm, ROUNDED[dtype], {backbone.output_embedding})
    half = dtype == "bfloat16" or (dtype in ROUNDED and device.type == "cuda")
    if half and backbone.casts_inputs:
        # Before they move, so that the device needs room for these alone. An LSTM's weights are read for every frame.
        for module in (backbone.vlm, *(part for part in model.head.modules() if isinstance(part, nn.LSTM))):
            to_bfloat16(module)
    return model.to(device)


def to_bfloat16(module: nn.Module) -> None:
    """In place, but for the frequencies of rotary positions, which transformers keeps exact too, and rounded layers."""
    for child in module.modules():
        for weight in child.parameters(recurse=False):
            weight.data = weight.data.to(torch.bfloat16)
        for name, part in child.named_buffers(recurse=False):
            exact = name.endswith("inv_freq") or isinstance(child, tuple(ROUNDED.values()))
            if part.is_floating_point() and not exact:
                setattr(child, name, part.to(torch.bfloat16))


def check_fp8(device: torch.device) -> None:
    """Raises: ConfigError where fp8 cannot be multiplied."""
    if device.type != "cuda":
        raise ConfigError(f"dtype fp8: got device {device}, expected an NVIDIA GPU of compute capability "
                          f"{'.'.join(map(str, FP8_CAPABILITY))} or more; use float32, bfloat16 or int8")
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        raise ConfigError(f"dtype fp8: got {torch.cuda.get_device_name(device)} of compute capability "
                          f"{'.'.join(map(str, capability))}, expected {'.'.join(map(str, FP8_CAPABILITY))} or more; "
                          "use bfloat16 or int8")


def replace_linears(module: nn.Module, kind: type[Int8Linear] | type[Fp8Linear],
                    keep: set[nn.Module | None]) -> int:
    """Put `kind` in the place of every plain linear layer below `module` that it can stand for; returns how many."""
    count = 0
    for name, child in module.named_children():
        if type(child) is nn.Linear and child not in keep and kind.takes(child):
            setattr(module, name, kind(child))
            count += 1
        else:
            count += replace_linears(child, kind, keep)
    return count


class Int8Linear(nn.Module):
    """A linear layer with weights in 8 bits, symmetric, a scale for each output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=SMALLEST)
        # Buffers: whoever asks a model for its number type looks at its parameters.
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale[:, 0])
        self.bias = linear.bias

    @staticmethod
    def takes(linear: nn.Linear) -> bool:
        """Whether it can stand for this layer."""
        return True

    def forward(self, features: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the number type of `features`."""
        output = F.linear(features, self.weight.to(features.dtype)) * self.scale
        return (output if self.bias is None else output + self.bias).to(features.dtype)


class Fp8Linear(nn.Module):
    """A linear layer that multiplies in 8-bit floats: a scale for each output, and one for each row of its input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _to_fp8(linear.weight.detach().float())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())
        self.bias = linear.bias

    @staticmethod
    def takes(linear: nn.Linear) -> bool:
        """Whether it can stand for this layer: the GPU's units want multiples of 16."""
        return linear.in_features % FP8_MULTIPLE == 0 and linear.out_features % FP8_MULTIPLE == 0

    def forward(self, features: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the number type of `features`."""
        rows, scale = _to_fp8(features.flatten(0, -2).float())
        output = torch._scaled_mm(rows, self.weight.T, scale_a=scale, scale_b=self.scale, out_dtype=torch.bfloat16)
        output = output.unflatten(0, features.shape[:-1]).to(features.dtype)
        return output if self.bias is None else output + self.bias.to(features.dtype)


ROUNDED: dict[NumberType, type[Int8Linear] | type[Fp8Linear]] = {"int8": Int8Linear, "fp8": Fp8Linear}


def _to_fp8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(R, C) -> the same in e4m3 and the scale of each row, (R, 1)."""
    scale = (rows.abs().amax(1, keepdim=True) / torch.finfo(FP8).max).clamp(min=SMALLEST)
    return (rows / scale).to(FP8), scale

"""A model in, the same model with every weight split over the processes out, and whole again for a bundle.

FSDP2 (https://arxiv.org/abs/2304.11277, torch.distributed.fsdp.fully_shard) is called here, not by Accelerate's plugin:
Accelerate 1.15 shards on GPUs only, and this is one path for GPUs and CPUs. Weights are gathered in float32, which any
backbone computes with under autocast.
"""

from __future__ import annotations

import copy

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vla_policy.model.vla import VLAModel
from vla_training.adapt import wrap_units
from vla_training.training.objective import Objective


def shard(objective: Objective, accelerator: Accelerator) -> Objective:
    """Split the layers of both towers one by one, and what is left as one more unit; changes and returns `objective`.

    A unit is whole only while it computes, so that a process never holds more than one unit beside its share.
    """
    # Without what Accelerate adds for DDP; the precision stays its business.
    objective = accelerator.prepare_model(objective, device_placement=False, evaluation_mode=True)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for unit in [*wrap_units(objective.model), objective]:
        # The root too: after a forward pass without a backward pass its weights must be shares again.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    return objective


def without_weights(model: VLAModel) -> VLAModel:
    """A copy that has everything but memory for its parameters."""
    empty = {id(value): nn.Parameter(torch.empty_like(value, device="meta"), requires_grad=value.requires_grad)
             for value in model.parameters()}
    return copy.deepcopy(model, empty)


def gathered(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The state of a sharded model in CPU memory, shared weights once; empty unless `keep`. All processes must call."""
    known: dict[int, Tensor] = {}
    state = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in known:
            tensor = value.detach()
            tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            known[id(value)] = tensor.to("cpu", copy=True) if keep else tensor.new_empty(0)
        state[name] = known[id(value)]
    return state if keep else {}
